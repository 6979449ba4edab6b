//! smoke
use skep_abi::programs;
use skep_test_programs::{Bench, Crafted, Segment, bench::*};

#[test]
fn loads() {
    let bench = Bench::new().unwrap_or_else(|e| panic!("{e:#?}"));
    let packet = Crafted::new(POD_MAC, POD_HOST_MAC, POD, NEIGHBOUR, Segment::Udp(1, 2, b"hello".to_vec()));
    let out = bench.pass(&programs::FROM_POD, &packet).unwrap();
    println!("{out:?}");
    println!("{:?}", bench.datapath().counters());
}
