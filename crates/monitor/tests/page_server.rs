//! Machines whose memory another process has, which gives it page by page: ours, and such as die, hang or lie.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use goldcrest_memory::userfault::{Event, Userfault};
use goldcrest_memory::{GuestRam, MemoryConfig};
use goldcrest_monitor::{
    CloneConfig, Control, Machine, MachineConfig, MonitorError, Notice, Outcome, PageServer,
    RestoreConfig, SnapshotError, SnapshotFiles, SnapshotInfo, SnapshotKind, StopReason,
};
use goldcrest_vcpu::kvm::Kvm;
use nix::sys::eventfd::EventFd;
use nix::sys::socket::Backlog;
use support::{DATA, frozen, image};
use tempfile::TempDir;
use vm_memory::{GuestAddress, GuestMemoryBackend};
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

/// How long anything may take.
const SOON: Duration = Duration::from_secs(60);
const PAGES: usize = 256;
/// A page of the table that the guest reads after others.
const LATER: u64 = DATA + (100 << 12);

/// Adds up the first bytes of the table's pages, and writes to each; ends with the low 8 bits as its status.
const SUM: &[u8] = &[
    0x31, 0xd2, // xor edx, edx
    0xbe, 0x00, 0x00, 0x11, 0x00, // mov esi, DATA
    0xb9, 0x00, 0x01, 0x00, 0x00, // mov ecx, PAGES
    // next:
    0x02, 0x16, // add dl, [rsi]
    0xc6, 0x46, 0x01, 0x01, // mov byte [rsi + 1], 1
    0x81, 0xc6, 0x00, 0x10, 0x00, 0x00, // add esi, 0x1000
    0xff, 0xc9, // dec ecx
    0x75, 0xf0, // jnz next
    0x0f, 0xb6, 0xc2, // movzx eax, dl
    0x66, 0xba, 0x04, 0x0e, // mov dx, doorbell::EXIT
    0xef, // out dx, eax
];

fn table() -> Vec<u8> {
    let mut table = vec![0; PAGES << 12];
    for page in 0..PAGES {
        table[page << 12] = u8::try_from(page * 7 % 251).unwrap();
    }
    table
}

fn expected() -> u32 {
    let sum: u32 = table().iter().map(|byte| u32::from(*byte)).sum();
    sum & 0xff
}

/// What there is to be tested with.
fn kvm() -> Option<Kvm> {
    if let Err(reason) = Userfault::new() {
        println!("skipped: userfaultfd: {reason}");
        return None;
    }
    support::kvm()
}

/// A snapshot of a machine that has not run its first instruction, and a place for a socket.
struct Saved {
    directory: TempDir,
}

impl Saved {
    fn new(kvm: &Kvm) -> Self {
        let code = image(SUM, &table(), (PAGES << 12) as u64);
        let mut config = MachineConfig::new(code);
        config.memory.size = 8 << 20;
        let (directory, _) = frozen(kvm, config);
        Self { directory }
    }

    fn files(&self) -> SnapshotFiles {
        SnapshotFiles::in_directory(self.directory.path())
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    fn listen(&self) -> UnixListener {
        UnixListener::bind(self.socket()).unwrap()
    }

    /// A machine that does not have the memory file.
    fn config(&self) -> RestoreConfig {
        let mut files = self.files();
        files.memory = "/nowhere".into();
        RestoreConfig {
            page_server: Some(self.socket()),
            machine: CloneConfig {
                timeout: Some(SOON),
                ..CloneConfig::default()
            },
            ..RestoreConfig::new(files)
        }
    }

    fn restore(&self, kvm: &Kvm) -> Result<Outcome, MonitorError> {
        Machine::restore(kvm, &self.config())?.run()
    }
}

/// A server of ours on a thread.
struct Serving {
    end: Arc<EventFd>,
    said: Arc<std::sync::Mutex<Vec<String>>>,
    thread: JoinHandle<std::io::Result<()>>,
}

impl Serving {
    fn start(saved: &Saved) -> Self {
        let server = PageServer::open(&saved.files()).unwrap();
        let listener = saved.listen();
        let end = Arc::new(EventFd::new().unwrap());
        let said = Arc::<std::sync::Mutex<Vec<String>>>::default();
        let (ended, saying) = (end.clone(), said.clone());
        let notice = Notice::new(move |text| saying.lock().unwrap().push(text.to_owned()));
        Self {
            thread: thread::spawn(move || server.serve(&listener, &*ended, &notice)),
            end,
            said,
        }
    }

    fn end(self) -> Vec<String> {
        self.end.write(1).unwrap();
        self.thread.join().unwrap().unwrap();
        self.said.lock().unwrap().clone()
    }
}

fn assert_ends_as_it_should(outcome: &Result<Outcome, MonitorError>) {
    let Ok(Outcome::Exit(status)) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(*status, expected());
}

#[test]
fn machines_go_on_with_memory_that_comes_page_by_page() {
    let Some(kvm) = kvm() else { return };
    let saved = Saved::new(&kvm);
    let serving = Serving::start(&saved);
    for _ in 0..3 {
        assert_ends_as_it_should(&saved.restore(&kvm));
    }
    let machines: Vec<_> = thread::scope(|scope| {
        let machines: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| saved.restore(&kvm)))
            .collect();
        let ends = machines.into_iter().map(|machine| machine.join().unwrap());
        ends.collect()
    });
    machines.iter().for_each(assert_ends_as_it_should);
    assert_eq!(serving.end(), Vec::<String>::new());
}

/// What it has is not all there, and is asked for when it is saved.
#[test]
fn a_machine_whose_memory_has_not_all_come_is_saved_whole() {
    let Some(kvm) = kvm() else { return };
    let saved = Saved::new(&kvm);
    let serving = Serving::start(&saved);
    let mut config = saved.config();
    config.machine.paused = true;
    let control = config.machine.control.clone();
    let machine = Machine::restore(&kvm, &config).unwrap();
    let running = thread::spawn(move || machine.run());
    let again = tempfile::tempdir().unwrap();
    let files = SnapshotFiles::in_directory(again.path());
    control.snapshot(&files, SnapshotKind::Full).unwrap();
    control.stop(StopReason::Escape);
    running.join().unwrap().unwrap();
    SnapshotInfo::verify(&files).unwrap();
    let outcome = Machine::restore(&kvm, &RestoreConfig::new(files))
        .unwrap()
        .run();
    assert_ends_as_it_should(&outcome);
    assert_eq!(serving.end(), Vec::<String>::new());
}

/// What another's page server gets.
fn greeting(listener: &UnixListener) -> (UnixStream, File, serde_json::Value) {
    let (socket, _) = listener.accept().unwrap();
    let mut bytes = [0; 1024];
    let (len, file) = socket.recv_with_fd(&mut bytes).unwrap();
    let message = serde_json::from_slice(&bytes[..len]).unwrap();
    (socket, file.unwrap(), message)
}

#[test]
fn what_is_sent_is_what_servers_made_for_firecracker_read() {
    let Some(kvm) = kvm() else { return };
    let saved = Saved::new(&kvm);
    let listener = saved.listen();
    thread::scope(|scope| {
        let machine = scope.spawn(|| saved.restore(&kvm));
        let (socket, _userfault, message) = greeting(&listener);
        let regions = message.as_array().unwrap();
        assert_eq!(regions.len(), 1);
        let number = |name: &str| regions[0][name].as_u64().unwrap();
        assert_eq!((number("size"), number("offset")), (8 << 20, 0));
        assert_eq!((number("page_size"), number("page_size_kib")), (4096, 4096));
        assert!(number("base_host_virt_addr").is_multiple_of(4096));
        drop(socket);
        // One that goes without a word, with pages that are needed.
        let error = machine.join().unwrap().unwrap_err();
        let MonitorError::Snapshot(SnapshotError::PageLost { .. }) = error else {
            panic!("{error}");
        };
        assert!(error.to_string().contains("has gone"), "{error}");
    });
}

#[test]
fn a_machine_whose_pages_do_not_come_can_be_stopped() {
    let Some(kvm) = kvm() else { return };
    let saved = Saved::new(&kvm);
    let listener = saved.listen();
    let mut config = saved.config();
    let control: Arc<Control> = config.machine.control.clone();
    config.machine.timeout = None;
    thread::scope(|scope| {
        let machine = scope.spawn(|| Machine::restore(&kvm, &config)?.run());
        let _silent = greeting(&listener);
        thread::sleep(Duration::from_millis(500));
        assert!(!machine.is_finished());
        let begun = Instant::now();
        control.stop(StopReason::Request);
        let outcome = machine.join().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(20));
        assert!(matches!(outcome, Ok(Outcome::Stopped(_))), "{outcome:?}");
    });
}

/// A server that others made.
struct Other {
    _socket: UnixStream,
    userfault: Userfault,
    base: u64,
    ram: GuestRam,
}

impl Other {
    /// Gives whatever is asked for until somebody asks for one of the table's later pages.
    fn serve_until_the_guest_has_begun(listener: &UnixListener, saved: &Saved) -> Self {
        let (socket, userfault, message) = greeting(listener);
        let config = MemoryConfig {
            size: 8 << 20,
            ..MemoryConfig::default()
        };
        let file = Arc::new(File::open(saved.files().memory).unwrap());
        let other = Self {
            _socket: socket,
            userfault: OwnedFd::from(userfault).try_into().unwrap(),
            base: message[0]["base_host_virt_addr"].as_u64().unwrap(),
            ram: GuestRam::from_image(&config, &file).unwrap(),
        };
        loop {
            match other.userfault.event().unwrap() {
                None => thread::yield_now(),
                Some(Event::Missing(address)) if address - other.base >= LATER => return other,
                Some(Event::Missing(address)) => assert!(other.give(address - other.base)),
                Some(event) => panic!("{event:?}"),
            }
        }
    }

    /// Gives a page; whether it was missing.
    fn give(&self, at: u64) -> bool {
        let page = self.ram.memory().get_slice(GuestAddress(at), 4096).unwrap();
        self.userfault.copy(self.base + at, &page).is_ok()
    }
}

#[test]
fn a_guest_that_waits_for_a_page_of_a_server_that_has_gone_ends_with_an_error() {
    let Some(kvm) = kvm() else { return };
    let saved = Saved::new(&kvm);
    let listener = saved.listen();
    thread::scope(|scope| {
        let machine = scope.spawn(|| saved.restore(&kvm));
        drop(Other::serve_until_the_guest_has_begun(&listener, &saved));
        let error = machine.join().unwrap().unwrap_err().to_string();
        let page = format!("page at {LATER:#x}");
        assert!(
            error.contains("has gone") && error.contains(&page),
            "{error}"
        );
    });
}

#[test]
fn a_guest_that_waits_for_a_page_can_be_stopped() {
    let Some(kvm) = kvm() else { return };
    let saved = Saved::new(&kvm);
    let listener = saved.listen();
    let mut config = saved.config();
    config.machine.timeout = Some(Duration::from_secs(1));
    thread::scope(|scope| {
        let machine = scope.spawn(|| Machine::restore(&kvm, &config)?.run());
        let _silent = Other::serve_until_the_guest_has_begun(&listener, &saved);
        let outcome = machine.join().unwrap();
        let Ok(Outcome::Stopped(StopReason::Timeout)) = outcome else {
            panic!("{outcome:?}");
        };
    });
}

/// Who has all pages needs nobody.
#[test]
fn a_server_that_has_given_all_can_go() {
    let Some(kvm) = kvm() else { return };
    let saved = Saved::new(&kvm);
    let listener = saved.listen();
    thread::scope(|scope| {
        let machine = scope.spawn(|| saved.restore(&kvm));
        let other = Other::serve_until_the_guest_has_begun(&listener, &saved);
        // The page that the guest waits for comes last: it ends, and its memory with it, when it has all that it reads.
        let others = (0..8 << 20).step_by(4096).filter(|at| *at != LATER);
        assert!(others.filter(|at| other.give(*at)).count() > 1000);
        assert!(other.give(LATER));
        drop(other);
        assert_ends_as_it_should(&machine.join().unwrap());
    });
}

#[test]
fn where_nobody_listens_nothing_is_restored() {
    let Some(kvm) = kvm() else { return };
    let saved = Saved::new(&kvm);
    let error = saved.restore(&kvm).unwrap_err().to_string();
    assert!(
        error.contains("cannot connect to the page server"),
        "{error}"
    );
}

/// Whose queue of connections is full would have one wait as long as it likes.
#[test]
fn a_server_that_takes_nobody_is_not_waited_for() {
    let Some(kvm) = kvm() else { return };
    let saved = Saved::new(&kvm);
    let listener = saved.listen();
    nix::sys::socket::listen(&listener, Backlog::new(0).unwrap()).unwrap();
    let _first = UnixStream::connect(saved.socket()).unwrap();
    let begun = Instant::now();
    let error = saved.restore(&kvm).unwrap_err().to_string();
    assert!(begun.elapsed() < SOON);
    assert!(
        error.contains("cannot connect to the page server"),
        "{error}"
    );
}

/// Says this to a server, with a descriptor of a file.
fn say(socket: &Path, text: &str, file: Option<&str>) -> UnixStream {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    match file.map(|path| File::open(path).unwrap()) {
        Some(file) => {
            stream
                .send_with_fd(text.as_bytes(), file.as_raw_fd())
                .unwrap();
        }
        None => stream.write_all(text.as_bytes()).unwrap(),
    }
    stream
}

#[test]
fn clients_that_lie_are_hung_up_on_and_others_are_served() {
    let Some(kvm) = kvm() else { return };
    let saved = Saved::new(&kvm);
    let serving = Serving::start(&saved);
    let region = |address: u64, size: u64, offset: u64, page: u64| {
        format!(
            r#"[{{"base_host_virt_addr":{address},"size":{size},"offset":{offset},"page_size":{page}}}]"#
        )
    };
    let null = Some("/dev/null");
    let lies = [
        ("rubbish".to_owned(), null),
        ("[]".to_owned(), null),
        (region(4096, 8 << 20, 0, 4096), None),
        (region(4096, 8 << 20, 4096, 4096), null),
        (region(4096, u64::MAX, 0, 4096), null),
        (region(1, 4096, 0, 4096), null),
        (region(4096, 4096, 0, 2 << 20), null),
        // Its memory is read from at once, which ends it.
        (region(4096, 4096, 0, 4096), Some("/dev/zero")),
    ];
    let count = lies.len();
    for (text, file) in lies {
        let mut stream = say(&saved.socket(), &text, file);
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "{text}");
    }
    // And one that says nothing.
    let _silent = UnixStream::connect(saved.socket()).unwrap();
    assert_ends_as_it_should(&saved.restore(&kvm));
    let said = serving.end();
    assert_eq!(said.len(), count, "{said:?}");
}
