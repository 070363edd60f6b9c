//! A Paxos replicated key-value store.

pub mod codec;
pub mod kv;
pub mod paxos;
pub mod role;
pub mod client;
pub mod net;
pub mod server;
pub mod storage;
pub mod trace;
