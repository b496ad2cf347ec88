//! Integration and end-to-end tests on real processes: every test has its own fleet (a control plane, proxies,
//! a database from a template, Redis) and scripted upstreams on real sockets. The modules follow the walks of
//! ARCHITECTURE.md and what the system must withstand. Nothing here sleeps to let something happen; it waits
//! for conditions with patience.

mod actions;
mod admin;
mod answers;
mod chaos;
mod classes;
mod drain;
mod failover;
mod floors;
mod hostile;
mod journey;
mod limits;
mod load;
mod money;
mod options;
mod passing;
mod probing;
mod push;
mod records;
mod refused;
mod scene;
mod sdk;
mod secrets;
mod sequences;
mod silence;
mod tls;
