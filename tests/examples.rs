//! The examples do what they say, on a real cluster.

#![allow(clippy::unwrap_used)]

#[path = "../examples/counter.rs"]
#[allow(dead_code)]
mod counter;
#[path = "../examples/hello.rs"]
#[allow(dead_code)]
mod hello;
#[path = "../examples/single_process_cluster.rs"]
#[allow(dead_code)]
mod single_process_cluster;
mod support;

use support::Cluster;

#[test]
fn hello_reads_its_write_and_the_counter_loses_no_increment() {
    let cluster = Cluster::start(3, &["--seed", "1"]);
    hello::run(cluster.cluster.clone()).unwrap();
    assert_eq!(cluster.client("c1", 1).get("greeting").unwrap().value.as_deref(), Some(&b"hello, world"[..]));
    counter::run(cluster.cluster.clone()).unwrap();
    counter::run(cluster.cluster.clone()).unwrap();
    assert_eq!(cluster.client("c2", 2).get("counter").unwrap().value.as_deref(), Some(&b"30"[..]));
}

#[test]
fn single_process_cluster_goes_on_without_one_server_and_takes_it_back() {
    single_process_cluster::run().unwrap();
}
