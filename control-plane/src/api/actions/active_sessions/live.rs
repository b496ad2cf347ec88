//! What the proxies say is open.

use crate::api::Failure;
use crate::db::sessions::Whose;
use crate::db::{Conn, live};
use chrono::{TimeDelta, Utc};
use contract::pb;
use prost::Message;

/// A proxy says it again at least three times in this time.
const FRESH: TimeDelta = TimeDelta::seconds(16);

/// The open requests of somebody.
pub(super) async fn open(conn: &mut Conn, whose: Whose) -> Result<Vec<pb::OpenRequest>, Failure> {
    let said = live::since(conn, Utc::now() - FRESH).await?;
    let is_theirs = |open: &pb::OpenRequest| {
        open.owner_id == whose.owner && whose.user.is_none_or(|user| user == open.user_id)
    };
    let open = said.iter().filter_map(|payload| pb::Live::decode(payload.as_slice()).ok());
    Ok(open.flat_map(|live| live.open).filter(is_theirs).collect())
}
