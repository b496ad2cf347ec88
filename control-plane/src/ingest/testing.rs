//! Records as tests make them.

use super::Written;
use crate::db::{Conn, Error};
use contract::pb;
use prost::Message;

/// [`super::write`] of records that are not encoded yet.
pub async fn write(conn: &mut Conn, records: Vec<pb::UsageRecord>) -> Result<Written, Error> {
    super::write(conn, records.iter().map(|record| record.encode_to_vec().into()).collect()).await
}
