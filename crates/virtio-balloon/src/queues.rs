//! Which queue is for what (§5.5.2).
//!
//! By the specification each has a number of its own. Linux numbers those that are there one after another, on all
//! transports: without statistics and hints its queue for reports is 2, not 4. Which way a driver goes is seen from the
//! queues that it has made ready: as long as the ways differ, the specification's has a queue with a greater number.

use goldcrest_virtio::{DeviceIo, Features};

use crate::spec::{feature, queue};

/// What a queue is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Inflate,
    Deflate,
    Statistics,
    Hints,
    Reports,
}

/// The queues that depend on a feature, in their order.
const OPTIONAL: [(Role, u64, u16); 3] = [
    (Role::Statistics, feature::STATS_VQ, queue::STATISTICS),
    (Role::Hints, feature::FREE_PAGE_HINT, queue::FREE_PAGE),
    (Role::Reports, feature::PAGE_REPORTING, queue::REPORTING),
];

/// The greatest sizes of the queues of a device that offers these features.
pub(crate) fn sizes(features: u64) -> Vec<u16> {
    let offered = OPTIONAL.iter().rev().find(|each| features & each.1 != 0);
    let last = offered.map_or(queue::DEFLATE, |(_, _, number)| *number);
    (0..=last)
        .map(|number| match number {
            queue::INFLATE | queue::DEFLATE => queue::SIZE,
            _ => queue::OPTIONAL_SIZE,
        })
        .collect()
}

/// What the queue with this number is for, if anything.
pub(crate) fn role(number: u16, features: Features, io: &mut DeviceIo<'_>) -> Option<Role> {
    match number {
        queue::INFLATE => Some(Role::Inflate),
        queue::DEFLATE => Some(Role::Deflate),
        _ => roles(features, io).find_map(|(role, at)| (at == number).then_some(role)),
    }
}

/// The number of the queue that is for this.
pub(crate) fn number(wanted: Role, features: Features, io: &mut DeviceIo<'_>) -> Option<u16> {
    roles(features, io).find_map(|(role, at)| (role == wanted).then_some(at))
}

/// The queues that depend on a feature that was agreed on, with their numbers.
fn roles(features: Features, io: &mut DeviceIo<'_>) -> impl Iterator<Item = (Role, u16)> {
    let agreed = move || {
        OPTIONAL
            .into_iter()
            .filter(move |each| features.has(each.1))
    };
    let after = agreed().fold(queue::STATISTICS, |number, _| number + 1);
    let by_specification = (after..io.queue_count()).any(|number| io.queue(number).is_some());
    (queue::STATISTICS..)
        .zip(agreed())
        .map(move |(in_turn, (role, _, own))| match by_specification {
            true => (role, own),
            false => (role, in_turn),
        })
}
