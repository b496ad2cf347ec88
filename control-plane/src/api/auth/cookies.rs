//! The two cookies of a login: the documented name and the one that clients in the wild send.

use actix_web::HttpRequest;
use actix_web::cookie::{Cookie, SameSite, time};
use std::time::Duration;

/// Both carry the same value.
pub(super) const NAMES: [&str; 2] = ["session", "auth-token"];

/// Cookies of one name that are looked at: each costs a question to Postgres.
const MOST: usize = 4;

/// The different values that a request carries, in the order of [`NAMES`]; of several cookies with one name, which
/// another program on a parent domain may set, the first [`MOST`].
pub(super) fn values(request: &HttpRequest) -> Vec<String> {
    let Ok(cookies) = request.cookies() else { return Vec::new() };
    let mut values = Vec::new();
    for name in NAMES {
        for cookie in cookies.iter().filter(|cookie| cookie.name() == name).take(MOST) {
            let value = cookie.value().trim().to_owned();
            if !value.is_empty() && !values.contains(&value) {
                values.push(value);
            }
        }
    }
    values
}

/// Not Secure over plain HTTP: a browser would never send it back.
pub(super) fn set(value: &str, life: Duration, is_https: bool) -> [Cookie<'static>; 2] {
    let life = time::Duration::seconds(i64::try_from(life.as_secs()).unwrap_or(i64::MAX));
    NAMES.map(|name| build(name, value, life, is_https))
}

/// Takes them away.
pub(super) fn clear(is_https: bool) -> [Cookie<'static>; 2] {
    NAMES.map(|name| build(name, "", time::Duration::ZERO, is_https))
}

fn build(name: &'static str, value: &str, life: time::Duration, is_https: bool) -> Cookie<'static> {
    let cookie = Cookie::build(name, value.to_owned());
    cookie.path("/").http_only(true).same_site(SameSite::Lax).max_age(life).secure(is_https).finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    #[test]
    fn a_few_of_each_name_are_looked_at() {
        let sent = "auth-token=z; session=a; session=b; session=a; session=; session=e; other=f";
        let request = TestRequest::default().insert_header(("cookie", sent)).to_http_request();
        assert_eq!(values(&request), ["a", "b", "z"]);
    }
}
