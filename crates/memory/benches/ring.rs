//! What a ring costs: making one, and reading 4 KiB from the page cache, against `preadv2`.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "criterion's macros; a bench may end"
)]

use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use goldcrest_memory::io::{Durability, Ring, Segment, read_at, write_at};
use vm_memory::{GuestAddress, GuestMemoryMmap};

const BATCH: u64 = 32;

fn benches(c: &mut Criterion) {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&vec![1; 1 << 20], 0).unwrap();
    let at = |i: u64| Segment {
        address: i * 4096,
        len: 4096,
    };

    for entries in [64, 256, 1024] {
        c.bench_function(&format!("make and drop, {entries} entries"), |b| {
            b.iter(|| Ring::new(memory.clone(), entries, &[file.as_fd()]).unwrap());
        });
    }

    let mut ring = Ring::new(memory.clone(), 64, &[file.as_fd()]).unwrap();
    let mut group = c.benchmark_group("4 KiB from the page cache");
    group.bench_function("preadv2", |b| {
        b.iter(|| read_at(&file, &memory, &[at(0)], 4096).unwrap());
    });
    group.bench_function("ring, one", |b| {
        b.iter(|| {
            ring.prepare_read(0, &[at(0)], 4096, 0).unwrap();
            ring.wait_all(|_, result| assert_eq!(result.unwrap(), 4096))
                .unwrap();
        });
    });
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function("ring, 32 at once", |b| {
        b.iter(|| {
            for i in 0..BATCH {
                ring.prepare_read(0, &[at(i)], i * 4096, i).unwrap();
            }
            ring.wait_all(|_, result| assert_eq!(result.unwrap(), 4096))
                .unwrap();
        });
    });
    group.finish();

    let mut group = c.benchmark_group("4 KiB to the page cache");
    let back = Durability::WriteBack;
    group.bench_function("pwritev2", |b| {
        b.iter(|| write_at(&file, &memory, &[at(0)], 4096, back).unwrap());
    });
    group.bench_function("ring, one", |b| {
        b.iter(|| {
            ring.prepare_write(0, &[at(0)], 4096, back, 0).unwrap();
            ring.wait_all(|_, result| assert_eq!(result.unwrap(), 4096))
                .unwrap();
        });
    });
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
