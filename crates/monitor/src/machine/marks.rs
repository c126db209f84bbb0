//! When the guest passed what the time line has of it.

use std::time::{Duration, Instant};

use goldcrest_abi::boot_info::{BootInfo, mark};
use goldcrest_boot::{Loaded, Protocol};
use goldcrest_vcpu::Vcpu;

use crate::Stage;
use crate::cpu::Board;
use crate::snapshot::MSR_TSC;

/// Reads when the guest passed its marks.
pub(super) fn guest_marks(
    timeline: &crate::Timeline,
    vcpu: &impl Vcpu,
    loaded: &Loaded,
    board: &Board,
) {
    let (Protocol::Direct, Some(boot_info)) = (loaded.protocol, loaded.boot_info) else {
        return;
    };
    let mut marks = [0; 8 * mark::COUNT];
    let at = boot_info + std::mem::offset_of!(BootInfo, marks) as u64;
    let (Ok(()), Some((ticks, now))) = (board.view.read(at, &mut marks), guest_time(vcpu)) else {
        return;
    };
    let stages = [
        (Stage::FirstInstruction, mark::ENTRY),
        (Stage::GuestMain, mark::MAIN),
        (Stage::GuestExit, mark::EXIT),
    ];
    let (chunks, _) = marks.as_chunks::<8>();
    let readings: Vec<_> = stages
        .iter()
        .filter_map(|(stage, index)| Some((*stage, u64::from_le_bytes(*chunks.get(*index)?))))
        .collect();
    timeline.mark_ticks((ticks, now), vcpu.tsc_khz(), &readings);
}

/// How long reading the guest's counter may take, so that it belongs to a moment.
const MOMENT: Duration = Duration::from_micros(10);

/// The guest's time-stamp counter, and the host's time when it was read: the best of a few tries.
fn guest_time(vcpu: &impl Vcpu) -> Option<(u64, Instant)> {
    let mut best: Option<(Duration, u64, Instant)> = None;
    for _ in 0..5 {
        let before = Instant::now();
        let ticks = vcpu.msr(MSR_TSC).ok()?;
        let took = before.elapsed();
        if best.is_none_or(|(least, ..)| took < least) {
            best = Some((took, ticks, before + took / 2));
        }
        if took < MOMENT {
            break;
        }
    }
    best.map(|(_, ticks, time)| (ticks, time))
}
