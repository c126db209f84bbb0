//! What has happened.

/// Counts of what has happened since the network was made. Each frame that is not passed on is counted by its reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Frames from the guest.
    pub frames_from_guest: u64,
    /// Their bytes.
    pub bytes_from_guest: u64,
    /// Frames to the guest.
    pub frames_to_guest: u64,
    /// Their bytes.
    pub bytes_to_guest: u64,
    /// Connections that the guest has opened.
    pub tcp_opened: u64,
    /// Connections that were opened to the guest.
    pub tcp_accepted: u64,
    /// Connections that the host or its network did not take.
    pub tcp_failed: u64,
    /// Segments that were sent to the guest again.
    pub tcp_retransmitted: u64,
    /// Connections that were given up because the guest did not answer.
    pub tcp_timed_out: u64,
    /// Segments from the guest of no connection.
    pub tcp_strays: u64,
    /// Flows of UDP and of echo requests.
    pub udp_opened: u64,
    /// Of these, those that were forgotten to make room for another.
    pub udp_evicted: u64,
    /// Frames from the guest that make no sense.
    pub malformed: u64,
    /// Frames from the guest with a wrong checksum.
    pub bad_checksum: u64,
    /// Frames from the guest of protocols that nobody here speaks.
    pub unknown_protocol: u64,
    /// Frames from the guest for somebody else on its network, where there is nobody.
    pub not_for_us: u64,
    /// What the guest may not connect to.
    pub denied: u64,
    /// Parts of packets from the guest that never became whole.
    pub fragments_lost: u64,
    /// What was refused because there is too much of it already.
    pub over_limit: u64,
    /// Datagrams that the host would not send.
    pub host_refused: u64,
    /// Datagrams for the guest that did not fit into what it receives with.
    pub no_room: u64,
    /// Events that the host could not tell.
    pub host_errors: u64,
}

/// Why a frame is not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dropped {
    Malformed,
    Checksum,
    Protocol,
    NotForUs,
    Denied,
    Limit,
    Refused,
    Stray,
}

impl Stats {
    pub(crate) fn dropped(&mut self, why: Dropped) {
        let count = match why {
            Dropped::Malformed => &mut self.malformed,
            Dropped::Checksum => &mut self.bad_checksum,
            Dropped::Protocol => &mut self.unknown_protocol,
            Dropped::NotForUs => &mut self.not_for_us,
            Dropped::Denied => &mut self.denied,
            Dropped::Limit => &mut self.over_limit,
            Dropped::Refused => &mut self.host_refused,
            Dropped::Stray => &mut self.tcp_strays,
        };
        *count += 1;
    }
}
