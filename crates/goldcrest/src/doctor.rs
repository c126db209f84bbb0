//! `goldcrest doctor`: can this machine host guests?

pub(crate) mod probe;

use std::fmt::Write;
use std::path::Path;

use goldcrest_vcpu::Hypervisor;
use goldcrest_vcpu::kvm::{Capability, Kvm, Need};

use crate::failure::Failure;
use crate::print;

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Good,
    /// Something is slower, or is not offered.
    Limited,
    /// No guest runs.
    Bad,
}

/// One line of the report.
struct Finding {
    verdict: Verdict,
    what: String,
    /// What to do about it, or what it means.
    advice: Option<&'static str>,
}

impl Finding {
    fn new(verdict: Verdict, what: impl Into<String>, advice: Option<&'static str>) -> Self {
        Self {
            verdict,
            what: what.into(),
            advice,
        }
    }

    fn good(what: impl Into<String>) -> Self {
        Self::new(Verdict::Good, what, None)
    }

    fn limited(what: impl Into<String>, advice: &'static str) -> Self {
        Self::new(Verdict::Limited, what, Some(advice))
    }

    fn bad(what: impl Into<String>, advice: &'static str) -> Self {
        Self::new(Verdict::Bad, what, Some(advice))
    }
}

/// Looks at everything that guests need. The status is 1 if none would run.
pub(crate) fn doctor() -> Result<u8, Failure> {
    let findings = examine();
    let bad = findings.iter().any(|f| f.verdict == Verdict::Bad);
    let mut report = String::new();
    for finding in &findings {
        let mark = match finding.verdict {
            Verdict::Good => "ok     ",
            Verdict::Limited => "limited",
            Verdict::Bad => "PROBLEM",
        };
        let _ = writeln!(report, "{mark}  {}", finding.what);
        if let Some(advice) = finding.advice {
            let _ = writeln!(report, "         -> {advice}");
        }
    }
    let conclusion = if bad {
        "This machine cannot host guests yet."
    } else {
        "This machine can host guests."
    };
    let _ = writeln!(report, "\n{conclusion}");
    print(report.as_bytes())?;
    Ok(u8::from(bad))
}

fn examine() -> Vec<Finding> {
    let mut findings = vec![processor()];
    match Kvm::open() {
        Ok(kvm) => {
            findings.push(Finding::good(
                "/dev/kvm can be opened, and speaks version 12",
            ));
            findings.extend(kvm.capabilities().iter().map(capability));
            findings.push(Finding::good(format!(
                "up to {} CPUs in a machine",
                kvm.max_cpus()
            )));
            findings.extend(probe::run(&kvm));
        }
        Err(error) => findings.push(Finding::bad(
            error.to_string(),
            "nothing below can be checked before this is mended",
        )),
    }
    findings.push(huge_pages());
    findings.push(open_files());
    findings
}

/// The processor's flags: hardware virtualization, or a hypervisor above us that has KVM without it.
fn processor() -> Finding {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags: Vec<_> = info
        .lines()
        .find(|line| line.starts_with("flags"))
        .map(|line| line.split_whitespace().collect())
        .unwrap_or_default();
    let guest = flags.contains(&"hypervisor");
    match (flags.contains(&"vmx"), flags.contains(&"svm")) {
        (true, _) => Finding::good("the processor has VMX"),
        (_, true) => Finding::good("the processor has SVM"),
        _ if guest => Finding::limited(
            "this machine is itself a guest, without VMX or SVM",
            "a software KVM may still run unikernels; for Linux guests, enable nested virtualization",
        ),
        _ => Finding::limited(
            "the processor shows neither VMX nor SVM",
            "enable virtualization in the machine's firmware (often called VT-x, AMD-V or SVM)",
        ),
    }
}

fn capability(capability: &Capability) -> Finding {
    let what = format!("{}: {}", capability.name, capability.purpose);
    match (capability.value > 0, capability.need) {
        (true, _) => Finding::good(what),
        (false, Need::Required) => Finding::bad(
            what + " (missing)",
            "a newer kernel has it: Linux 4.13 or later",
        ),
        (false, Need::Linux) => Finding::limited(
            what + " (missing)",
            "Linux guests run worse or not at all; unikernels do not need it",
        ),
        (false, Need::Optional) => Finding::limited(
            what + " (missing)",
            "guests run without it, some things are slower",
        ),
    }
}

fn huge_pages() -> Finding {
    let mode = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    let reserved = std::fs::read_to_string("/proc/sys/vm/nr_hugepages")
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok())
        .unwrap_or(0);
    match mode {
        Ok(mode) if !mode.contains("[never]") => Finding::good(format!(
            "huge pages: transparent ones on request, {reserved} of 2 MiB reserved"
        )),
        _ if reserved > 0 => Finding::good(format!("huge pages: {reserved} of 2 MiB reserved")),
        _ => Finding::limited(
            "huge pages: none",
            "for --huge-pages: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
        ),
    }
}

/// Descriptors that one small machine takes, with room for devices.
const FILES_NEEDED: u64 = 64;

fn open_files() -> Finding {
    let limits = std::fs::read_to_string(Path::new("/proc/self/limits")).unwrap_or_default();
    let limit = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|soft| soft.parse().ok())
        .unwrap_or(u64::MAX);
    let what = format!("up to {limit} open files");
    if limit >= FILES_NEEDED {
        Finding::good(what)
    } else {
        Finding::bad(what, "raise the limit: ulimit -n 1024")
    }
}
