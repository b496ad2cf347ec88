//! What several tables' statements need.

use super::{Conn, Error};
use diesel::sql_types::BigInt;
use diesel_async::RunQueryDsl;

#[derive(diesel::QueryableByName)]
struct Id {
    #[diesel(sql_type = BigInt)]
    id: i64,
}

/// The next identity of a table; gaps are harmless.
pub(super) async fn next_id(conn: &mut Conn, table: &'static str) -> Result<i64, Error> {
    let query = format!("SELECT nextval(pg_get_serial_sequence('{table}', 'id')) AS id");
    Ok(diesel::sql_query(query).get_result::<Id>(conn).await?.id)
}

/// The `ILIKE` pattern for texts that hold `part`, in which no character is special.
pub(super) fn contains(part: &str) -> String {
    let escaped = part.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
    format!("%{escaped}%")
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_character_is_special() {
        assert_eq!(super::contains(r"50%_\"), r"%50\%\_\\%");
    }
}
