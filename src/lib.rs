//! A Paxos replicated key-value store.

pub mod codec;
pub mod kv;
pub mod paxos;
pub mod role;
