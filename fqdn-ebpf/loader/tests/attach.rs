//! Attachment, both ways: what others do to it is undone, and a successor takes over.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    dead_code,
    reason = "a test says what went wrong by failing; test programs share helpers they do not all use"
)]

mod pair;

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
};

use aya::programs::{SchedClassifier, TcAttachType, loaded_programs};
use fqdn_ebpf_loader::{
    Attach, Config, Datapath, Marks, Pins, Sizes,
    Standing::{self, First, Lifted, Placed},
    clear_filters,
};
use identity::LocalIdentities;
use pair::{NODE4, Wire, ip, knows_tcx};

fn load(pins: Option<&Pins>) -> Datapath {
    let identities = Arc::new(Mutex::new(LocalIdentities::default()));
    let config = Config::new(Marks::default(), 0, 1);
    let sizes = Sizes::for_one_workload();
    match pins {
        Some(pins) => Datapath::load_pinned(&sizes, &config, identities, pins),
        None => Datapath::load(&sizes, &config, identities),
    }
    .unwrap_or_else(|e| panic!("{e}"))
}

/// A folder for pins that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        Self(Path::new("/sys/fs/bpf").join(format!("attach-{name}-{}", std::process::id())))
    }

    fn pins(&self) -> Pins {
        Pins::open(&self.0, &Sizes::for_one_workload()).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = Pins::remove(&self.0);
    }
}

fn tc(wire: &Wire, arguments: &str) -> String {
    let output = Command::new("tc")
        .args(["-n", &wire.node])
        .args(arguments.split(' '))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "tc {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The names of the filters at a hook, in the order in which they run.
fn filters(wire: &Wire, hook: &str) -> Vec<String> {
    tc(wire, &format!("filter show dev pod0 {hook}"))
        .lines()
        .filter(|line| line.contains("handle"))
        .map(|line| {
            let mut words = line.split(' ').skip_while(|word| *word != "handle").skip(2);
            words.next().unwrap_or_default().to_owned()
        })
        .collect()
}

/// Somebody's filter that lets everything pass at once, in front of those that are there.
fn intrude(wire: &Wire, hook: &str) {
    let output = Command::new("tc")
        .args(["-n", &wire.node])
        .args(["filter", "add", "dev", "pod0", hook, "prio", "1"])
        .args(["protocol", "all", "bpf", "da", "bytecode", "1,6 0 0 0"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Whether anything passes. Neighbours that were not found meanwhile are asked for anew.
fn is_open(wire: &Wire) -> bool {
    for namespace in [&wire.node, &wire.pod] {
        ip(&format!("-n {namespace} neigh flush all"));
    }
    wire.pings(NODE4.into())
}

#[test]
fn what_others_do_to_clsact_is_undone() {
    let wire = Wire::new("undone");
    let mut datapath = load(None);
    let mut attached = wire
        .in_node(|| datapath.attach("pod0", Attach::Clsact))
        .unwrap();
    assert_eq!(attached.how(), "clsact");
    let mut look = |expected: [Standing; 2]| {
        let found = wire.in_node(|| datapath.look_after(&mut attached)).unwrap();
        assert_eq!(found, expected);
        assert_eq!(filters(&wire, "ingress")[0], "tc_from_pod");
        assert_eq!(filters(&wire, "egress")[0], "tc_to_pod");
        assert!(!is_open(&wire), "no endpoint: everything is dropped");
    };
    look([First, First]);
    tc(&wire, "filter del dev pod0 ingress");
    look([Placed, First]);
    tc(&wire, "qdisc del dev pod0 clsact");
    assert!(is_open(&wire), "nothing there, nothing enforced");
    look([Placed, Placed]);
    for _ in 0..3 {
        intrude(&wire, "ingress");
        look([Lifted, First]);
        intrude(&wire, "egress");
        look([First, Lifted]);
    }
    assert_eq!(
        filters(&wire, "ingress").len(),
        4,
        "three of others, one of ours"
    );
    drop(attached);
    assert_eq!(
        filters(&wire, "ingress").len(),
        3,
        "ours went, others' stay"
    );
    assert!(is_open(&wire));
}

#[test]
fn what_others_do_to_tcx_is_undone() {
    if !knows_tcx() {
        // `wire` shows that the kernel refuses it by name; there is nothing to look after.
        let wire = Wire::new("no-tcx");
        let attached = wire
            .in_node(|| load(None).attach("pod0", Attach::Auto))
            .unwrap();
        assert_eq!(attached.how(), "clsact");
        return;
    }
    let wire = Wire::new("tcx-undone");
    let mut datapath = load(None);
    let mut attached = wire
        .in_node(|| datapath.attach("pod0", Attach::Auto))
        .unwrap();
    assert_eq!(attached.how(), "tcx");
    let mut other = load(None);
    let mut look = |expected: [Standing; 2]| {
        let found = wire.in_node(|| datapath.look_after(&mut attached)).unwrap();
        assert_eq!(found, expected);
    };
    look([First, First]);
    let intruder = wire.in_node(|| other.attach("pod0", Attach::Tcx)).unwrap();
    look([Lifted, Lifted]);
    look([First, First]);
    drop(intruder);
    look([First, First]);
    assert!(!is_open(&wire), "no endpoint: everything is dropped");
}

/// A successor takes the place of what its predecessor attached: nothing is open in between, and
/// nothing is there twice.
fn succession(name: &str, ways: &[(Attach, &str)]) {
    let wire = Wire::new(name);
    let folder = Folder::new(name);
    for (generation, (how, called)) in ways.iter().enumerate() {
        let mut datapath = load(Some(&folder.pins()));
        let attached = wire.in_node(|| datapath.attach("pod0", *how)).unwrap();
        assert_eq!(attached.how(), *called);
        assert_eq!(attached.inherited(), generation > 0, "{how:?}");
        let filtered = usize::from(*called == "clsact");
        for hook in ["ingress", "egress"] {
            assert_eq!(filters(&wire, hook).len(), filtered, "{hook} after {how:?}");
        }
        drop((attached, datapath));
        assert!(!is_open(&wire), "it outlives its maker");
    }
    Pins::remove(&folder.0).unwrap();
    wire.in_node(|| clear_filters(&[wire.ifindex()])).unwrap();
    let last = ways.last().unwrap().1;
    assert_eq!(
        is_open(&wire),
        last == "tcx",
        "filters of a kept interface stay"
    );
    wire.in_node(|| clear_filters(&[])).unwrap();
    assert!(is_open(&wire), "gone");
}

#[test]
fn a_successor_replaces_filters_of_clsact() {
    succession("clsact-heirs", &[(Attach::Clsact, "clsact"); 3]);
}

#[test]
fn a_successor_may_attach_by_the_other_way() {
    let auto = if knows_tcx() { "tcx" } else { "clsact" };
    succession(
        "ways",
        &[
            (Attach::Auto, auto),
            (Attach::Clsact, "clsact"),
            (Attach::Auto, auto),
        ],
    );
}

#[test]
fn a_successor_finds_its_place_behind_others_and_moves_to_the_front() {
    let wire = Wire::new("behind");
    let folder = Folder::new("behind");
    let mut datapath = load(Some(&folder.pins()));
    drop(
        wire.in_node(|| datapath.attach("pod0", Attach::Clsact))
            .unwrap(),
    );
    drop(datapath);
    intrude(&wire, "ingress");
    let mut datapath = load(Some(&folder.pins()));
    let mut attached = wire
        .in_node(|| datapath.attach("pod0", Attach::Clsact))
        .unwrap();
    assert_eq!(filters(&wire, "ingress")[0], "tc_from_pod");
    assert_eq!(filters(&wire, "ingress").len(), 2);
    let found = wire.in_node(|| datapath.look_after(&mut attached)).unwrap();
    assert_eq!(found, [First, First]);
    attached.detach();
    wire.in_node(|| clear_filters(&[])).unwrap();
}

#[test]
fn a_program_before_clsact_is_refused_by_name() {
    if !knows_tcx() {
        let alone = Wire::new("alone").in_node(|| load(None).attach("pod0", Attach::Clsact));
        return assert!(alone.is_ok());
    }
    let wire = Wire::new("before");
    let mut datapath = load(None);
    // One of ours at the wrong hook is as good as somebody else's.
    let number = loaded_programs()
        .map(Result::unwrap)
        .find(|info| info.name_as_str() == Some("tc_to_pod"))
        .unwrap();
    let mut foreign = SchedClassifier::from_program_info(number, "tc_to_pod".into()).unwrap();
    let refused = wire.in_node(|| {
        foreign.attach("pod0", TcAttachType::Ingress).unwrap();
        datapath.attach("pod0", Attach::Clsact)
    });
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("runs before clsact"), "{error}");
}
