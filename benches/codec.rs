//! What the wire costs: frames of the messages that a write needs.
//!
//! `cargo bench --bench codec`
#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use paxos_kv::kv::{self, Op};
use paxos_kv::net::{
    CLIENT_FRAME_MAX_BYTES, ClientReply, ClientRequest, Envelope, PEER_FRAME_MAX_BYTES, Reply, Request, frame_into,
    unframe,
};
use paxos_kv::paxos::{Ballot, Message, Slot, SlotRange, Value};
use paxos_kv::role::ServerId;
use paxos_kv::trace::TraceContext;
use serde::Serialize;
use serde::de::DeserializeOwned;

fn both_ways<T: Serialize + DeserializeOwned>(criterion: &mut Criterion, name: &str, value: &T, limit: usize) {
    let mut bytes = Vec::new();
    frame_into(value, &mut bytes);
    let mut group = criterion.benchmark_group(format!("{name}, {} bytes", bytes.len()));
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    let mut buffer = Vec::with_capacity(2 * bytes.len());
    group.bench_function("encode", |bencher| {
        bencher.iter(|| {
            buffer.clear();
            frame_into(black_box(value), &mut buffer);
        });
    });
    group.bench_function("decode", |bencher| bencher.iter(|| unframe::<T>(black_box(&bytes), limit).unwrap()));
    group.finish();
}

fn frames(criterion: &mut Criterion) {
    let ballot = Ballot { round: 7, server: ServerId(1) };
    let op = |size| Op::Put { key: b"key-000000000042".to_vec(), value: vec![7; size].into(), if_version: None };
    for size in [100, 10_000] {
        let command = kv::KvCommand::Write {
            session: 1,
            nonce: 1 << 100,
            sequence: 9,
            first_open: 9,
            label: String::new(),
            op: op(size),
        };
        let message = Message::Accept { ballot, first: Slot(1_000), values: vec![Value::Command(command.to_paxos())] };
        let accept = Envelope { context: TraceContext::default(), message: message.into() };
        both_ways(criterion, &format!("ACCEPT of a {size}-byte value"), &accept, PEER_FRAME_MAX_BYTES);
    }
    let message = Message::Accepted { ballot, slots: SlotRange { first: Slot(1_000), last: Slot(1_000) } };
    both_ways(
        criterion,
        "ACCEPTED",
        &Envelope { context: TraceContext::default(), message: message.into() },
        PEER_FRAME_MAX_BYTES,
    );
    let request = Request::Write { session: 1, nonce: 1 << 100, sequence: 9, first_open: 9, op: op(100) };
    let request = ClientRequest { number: 12, context: TraceContext::default(), request };
    both_ways(criterion, "a client's write", &request, CLIENT_FRAME_MAX_BYTES);
    let reply = Reply::Value { slot: Slot(1_000), value: Some(vec![7; 100].into()), version: 3 };
    let reply = ClientReply { number: 12, context: TraceContext::default(), reply };
    both_ways(criterion, "a client's value", &reply, CLIENT_FRAME_MAX_BYTES);
}

criterion_group!(benches, frames);
criterion_main!(benches);
