//! What finding a device costs, by the number of devices; and whether remembering the last one would pay.
#![allow(missing_docs, clippy::expect_used, reason = "a benchmark")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use goldcrest_bus::{Bus, Device, Effect, Range, SharedDevice, shared};

struct Register(u8);

impl Device for Register {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(self.0);
    }
    fn write(&mut self, _offset: u64, data: &[u8]) -> Effect {
        self.0 = data.first().copied().unwrap_or(0);
        Effect::None
    }
}

/// `count` devices of 16 addresses each, every 32 addresses.
fn bus(count: u64) -> Bus {
    let mut bus = Bus::new("port");
    for index in 0..count {
        let range = Range::new(index * 32, 16).expect("a range");
        bus.add(format!("device {index}"), range, shared(Register(0)))
            .expect("ranges do not overlap");
    }
    bus
}

/// What a bus with a memory of the last device would do when it remembers right: compare, lock, call.
struct Remembered(Range, SharedDevice);

impl Remembered {
    fn write(&self, address: u64, data: &[u8]) -> Effect {
        if address < self.0.first() || address > self.0.last() {
            return Effect::None;
        }
        let mut device = self.1.lock().expect("no panic before");
        device.write(address - self.0.first(), data)
    }
}

fn dispatch(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("write");
    for count in [1, 8, 16, 64, 1024] {
        let bus = bus(count);
        let address = (count / 2) * 32 + 4;
        group.bench_function(BenchmarkId::new("devices", count), |bench| {
            bench.iter(|| bus.write(black_box(address), black_box(&[1])));
        });
    }
    let range = Range::new(256, 16).expect("a range");
    let remembered = Remembered(range, shared(Register(0)));
    group.bench_function("remembered", |bench| {
        bench.iter(|| remembered.write(black_box(260), black_box(&[1])));
    });
    group.finish();
}

criterion_group!(benches, dispatch);
criterion_main!(benches);
