//! The network device: a driver that misbehaves, and a network whose frames are of any bytes and lengths, or that fails.

use std::io;
use std::time::Duration;

use goldcrest_device_fuzz::{Faults, HostileDriver, Interference};
use goldcrest_rate_limiter::ManualClock;
use goldcrest_virtio::{Features, Mmio, Ram, Segment, Waits};
use goldcrest_virtio_net::spec::{MAX_FRAME, feature, header};
use goldcrest_virtio_net::{Header, Net, NetBackend, NetConfig, gather, scatter, total};

use crate::saved;

/// What frames to the guest are made of, over and over: a header, an address, zeros, ones.
const PATTERN: [u8; 32] = [
    1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 9, 9, 2, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0x81, 0, 0x80, 5, 3, 4, 0x33, 0x33,
];

/// Runs the target: a byte for the device, the others for the driver.
pub fn run(data: &[u8]) {
    let Some((manner, data)) = data.split_first() else {
        return;
    };
    let driver = HostileDriver::new(data).round_trip(saved::round_trip);
    let (faults, interference) = (driver.faults(), driver.interference());
    let clock = ManualClock::default();
    let rate = match manner & 4 {
        0 => Default::default(),
        _ => "1000/200+100ops/8".parse().expect("a rate"),
    };
    let config = NetConfig {
        mac: Some([2, 0, 0, 0, 0, 1].try_into().expect("an address")),
        mtu: (manner & 8 != 0).then_some(68),
        // Queues have eight places.
        queue_pairs: 1 + u16::from(manner & 3).min(2),
        rx_rate: rate,
        tx_rate: rate,
    };
    driver.run(|memory, line| {
        let network = Faulty {
            faults: faults.clone(),
            interference: interference.clone(),
            clock: clock.clone(),
            features: if manner & 16 == 0 { u64::MAX } else { 0 },
            agreed: Features(0),
            waiting: None,
        };
        let net = Net::new(network, &config).expect("the configuration is a possible one");
        Mmio::new(net.with_clock(clock.clone()), memory, line)
    });
}

/// Takes all frames, and has some for the guest, unless something goes wrong.
struct Faulty {
    faults: Faults,
    interference: Interference,
    clock: ManualClock,
    features: u64,
    agreed: Features,
    /// Bytes of the frame that is next, if that has been told.
    waiting: Option<usize>,
}

impl Faulty {
    fn fault(&self) -> u8 {
        self.interference.strike();
        let fault = self.faults.next();
        self.clock.advance(Duration::from_millis(u64::from(fault)));
        fault
    }

    /// Bytes of the next frame for the guest, if there is one.
    fn next(&mut self) -> io::Result<usize> {
        if let Some(len) = self.waiting {
            return Ok(len);
        }
        let fault = self.fault();
        let len = match fault {
            // A network that gives without end is not what is tested.
            0 => return Err(io::ErrorKind::WouldBlock.into()),
            1 | 2 => return Err(io::ErrorKind::Other.into()),
            3..0x20 => usize::from(fault) - 3,
            0x20..0xc0 => usize::from(fault),
            0xc0..0xf0 => usize::from(fault) << 5,
            0xf0..0xf8 => MAX_FRAME - 4 + usize::from(fault & 7),
            _ => usize::MAX - usize::from(fault & 7),
        };
        self.waiting = Some(len);
        Ok(len)
    }
}

impl NetBackend for Faulty {
    fn features(&self) -> u64 {
        self.features
    }

    fn queue_pairs(&self) -> u16 {
        4
    }

    fn start(&mut self, agreed: Features, pairs: u16) -> io::Result<()> {
        assert!((1..=4).contains(&pairs));
        // A device that cannot go on where it was saved is not the same, which is not what is tested.
        if self.fault() == 1 && self.agreed != Features(0) {
            return Err(io::ErrorKind::Other.into());
        }
        self.agreed = agreed;
        Ok(())
    }

    fn send(
        &mut self,
        pair: u16,
        ram: Ram<'_>,
        header: &Header,
        frame: &[Segment],
    ) -> io::Result<()> {
        assert!(pair < 4);
        let len = total(frame);
        assert!((14..=MAX_FRAME - header::SIZE).contains(&len), "{len}");
        if header.flags() != 0 {
            assert_eq!(header.flags(), header::F_NEEDS_CSUM);
            assert!(self.agreed.has(feature::CSUM));
            let sum_at = usize::from(header.csum_start()) + usize::from(header.csum_offset());
            assert!(sum_at + 2 <= len);
        }
        if header.gso_type() != header::GSO_NONE {
            assert!(self.agreed.0 & feature::HOST_OFFLOADS & !feature::CSUM != 0);
            assert!(header.flags() != 0 && header.gso_size() != 0);
        }
        match self.fault() {
            1..0x20 => return Err(io::ErrorKind::WouldBlock.into()),
            0x20..0x30 => return Err(io::ErrorKind::Other.into()),
            _ => {}
        }
        gather(ram, frame, &mut [0; MAX_FRAME]).map_err(io::Error::other)?;
        Ok(())
    }

    fn receive(&mut self, pair: u16, ram: Ram<'_>, room: &[Segment]) -> io::Result<usize> {
        assert!(pair < 4 && total(room) >= header::SIZE);
        let len = self.next()?;
        let shown = len.min(MAX_FRAME + 100);
        let frame: Vec<u8> = PATTERN.iter().copied().cycle().take(shown).collect();
        scatter(ram, room, 0, &frame).map_err(io::Error::other)?;
        if len <= total(room) {
            self.waiting = None;
        }
        Ok(len)
    }

    fn discard(&mut self, _: u16) {
        assert!(self.waiting.take().is_some(), "there is a frame");
    }

    fn has_frames(&self) -> bool {
        self.waiting.is_some() || self.faults.next() & 1 != 0
    }

    fn waits(&self, pair: u16, receive: bool, send: bool, waits: &mut Waits) {
        assert!(pair < 4);
        if receive || send {
            waits.within(Duration::from_millis(1));
        }
    }

    fn link_up(&self) -> bool {
        self.faults.next() & 0xc1 != 0xc1
    }

    fn reset(&mut self) {
        self.agreed = Features(0);
        self.waiting = None;
    }
}
