//! The whole walk in this process, in paused time: real table, limits in memory, real spool, the real HTTP/1.1 client
//! over pipes, scripted upstreams. A test makes a [`walk::Walk`], scripts its hosts, sends calls and looks at answers,
//! records and health.

mod answers;
mod call;
mod caller;
mod folder;
mod host;
mod ledger;
mod reply;
mod walk;

mod admission;
mod documents;
mod endings;
mod failover;
mod full;
mod health;
mod interrupted;
mod model;
mod money;
mod nature;
mod probing;
mod resources;
mod silence;
mod stranger;
