//! Where start-up goes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A point on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "see `label`")]
pub enum Stage {
    ProcessStart,
    Main,
    KvmOpened,
    MemoryReserved,
    VmCreated,
    VcpuCreated,
    ImageLoaded,
    VcpuReady,
    FirstInstruction,
    GuestMain,
    FirstOutput,
    GuestExit,
    MachineEnded,
}

impl Stage {
    /// What has happened when the point is reached.
    pub fn label(self) -> &'static str {
        match self {
            Self::ProcessStart => "process start",
            Self::Main => "main",
            Self::KvmOpened => "KVM opened",
            Self::MemoryReserved => "memory reserved",
            Self::VmCreated => "VM created",
            Self::VcpuCreated => "vCPU created",
            Self::ImageLoaded => "image loaded",
            Self::VcpuReady => "vCPU ready",
            Self::FirstInstruction => "first instruction",
            Self::GuestMain => "guest main",
            Self::FirstOutput => "first output",
            Self::GuestExit => "guest exit",
            Self::MachineEnded => "machine ended",
        }
    }
}

/// Points in time, by stage. Clones share them.
#[derive(Debug, Clone)]
pub struct Timeline {
    start: Instant,
    marks: Arc<Mutex<Vec<(Stage, Instant)>>>,
}

impl Timeline {
    /// A timeline that counts from `start`, the process's own.
    pub fn new(start: Instant) -> Self {
        Self {
            start,
            marks: Arc::default(),
        }
    }

    /// `stage` is reached now. The first time counts.
    pub fn mark(&self, stage: Stage) {
        self.mark_at(stage, Instant::now());
    }

    /// `stage` was reached at `time`. The first time counts.
    pub fn mark_at(&self, stage: Stage, time: Instant) {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        if marks.iter().all(|(known, _)| *known != stage) {
            marks.push((stage, time));
        }
    }

    /// The stages that were reached, by time, counted from the start.
    pub fn marks(&self) -> Vec<(Stage, Duration)> {
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let mut marks: Vec<_> = marks
            .iter()
            .map(|(stage, time)| (*stage, time.saturating_duration_since(self.start)))
            .collect();
        marks.sort_by_key(|(stage, time)| (*time, *stage));
        marks
    }

    /// Places readings of a time-stamp counter that read `ticks` at `now`.
    ///
    /// The readings are the guest's to choose: those that lie in the future or before the start are left out.
    pub(crate) fn mark_ticks(
        &self,
        (ticks, now): (u64, Instant),
        khz: u64,
        readings: &[(Stage, u64)],
    ) {
        for &(stage, reading) in readings {
            let ago = ticks
                .checked_sub(reading)
                .and_then(|ago| u128::from(ago).checked_mul(1_000_000))
                .and_then(|ago| ago.checked_div(khz.into()))
                .and_then(|nanoseconds| u64::try_from(nanoseconds).ok())
                .map(Duration::from_nanos);
            let time = ago.and_then(|ago| now.checked_sub(ago));
            if reading != 0
                && let Some(time) = time
                && time >= self.start
            {
                self.mark_at(stage, time);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_in_order_and_the_first_counts() {
        let start = Instant::now();
        let timeline = Timeline::new(start);
        timeline.mark_at(Stage::VcpuReady, start + Duration::from_micros(20));
        timeline.mark_at(Stage::Main, start + Duration::from_micros(10));
        timeline.mark_at(Stage::Main, start + Duration::from_micros(30));
        let marks: Vec<_> = timeline
            .marks()
            .iter()
            .map(|(stage, time)| (*stage, time.as_micros()))
            .collect();
        assert_eq!(marks, [(Stage::Main, 10), (Stage::VcpuReady, 20)]);
    }

    #[test]
    fn a_guest_that_lies_about_time_leaves_no_mark() {
        let start = Instant::now()
            .checked_sub(Duration::from_secs(1))
            .unwrap_or_else(Instant::now);
        let timeline = Timeline::new(start);
        let stage = Stage::GuestMain;
        for (now, khz, reading) in [
            (100, 1000, 101),
            (u64::MAX, 1, 1),
            (u64::MAX, 0, 1),
            (10_000_000, 1000, 1),
            (100, 1000, 0),
        ] {
            timeline.mark_ticks((now, Instant::now()), khz, &[(stage, reading)]);
            assert_eq!(timeline.marks(), [], "{now} {khz} {reading}");
        }
        timeline.mark_ticks((1_000_000, Instant::now()), 1_000_000, &[(stage, 999_000)]);
        assert_eq!(timeline.marks().len(), 1);
    }
}
