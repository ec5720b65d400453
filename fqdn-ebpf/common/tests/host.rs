//! The vectors on the host: the same code as in the kernel, with maps made of collections.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    dead_code,
    reason = "a test says what went wrong by failing; benches share helpers they do not all use"
)]

mod model;
mod vectors;

use model::Model;

#[test]
fn every_vector_holds_on_the_host() {
    let mut count = 0;
    for (name, vector) in vectors::vectors() {
        println!("{name}");
        vector(&mut Model::new());
        count += 1;
    }
    assert!(count >= 40, "{count}");
}
