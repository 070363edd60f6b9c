//! A Paxos replicated key-value store.

pub mod client;
pub mod cluster;
pub mod codec;
pub mod kv;
pub mod linearizability;
pub mod net;
pub mod paxos;
pub mod random;
pub mod role;
pub mod server;
pub mod storage;
pub mod trace;
