//! The sysctls of a throw-away namespace before, during and after; needs root.

use nix::sched::{CloneFlags, unshare};

use super::*;

/// Runs a test in a network namespace of its own, with one link of each kind.
fn in_namespace(test: impl FnOnce() + Send + 'static) {
    std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("needs root");
        let made = std::process::Command::new("ip")
            .args(["link", "add", "a0", "type", "veth", "peer", "name", "b0"])
            .status()
            .unwrap();
        assert!(made.success());
        test();
    })
    .join()
    .unwrap();
}

fn on(path: &Path) -> String {
    read(path).unwrap()
}

fn set(path: &Path, value: &str) {
    fs::write(path, value).unwrap();
}

fn another_owner() -> Owner {
    // Process 1 lives for as long as any test.
    let stat = fs::read_to_string("/proc/1/stat").unwrap();
    let start = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .nth(19)
        .unwrap();
    Owner {
        pid: 1,
        start: start.parse().unwrap(),
        ..Owner::current()
    }
}

#[test]
fn the_last_run_puts_ipv4_back() {
    in_namespace(|| {
        let uplink = conf(V4, "b0", "forwarding");
        set(&Path::new(V4).join("ip_forward"), "0");
        let (first, second) = (Owner::current(), another_owner());
        let changed = acquire("a0", &["b0".to_owned()], false, first).unwrap();
        assert_eq!(
            (changed, on(&uplink).as_str()),
            (vec!["b0".to_owned()], "1")
        );
        assert_eq!(
            on(&Path::new(V4).join("ip_forward")),
            "0",
            "only the interfaces are touched"
        );
        acquire("a0", &["b0".to_owned()], false, second).unwrap();
        release(first).unwrap();
        assert_eq!(on(&uplink), "1", "one run is left");
        release(second).unwrap();
        assert_eq!(on(&uplink), "0");
    });
}

#[test]
fn what_somebody_else_turned_on_meanwhile_stays_on() {
    in_namespace(|| {
        let global = Path::new(V4).join("ip_forward");
        set(&global, "0");
        acquire("a0", &["b0".to_owned()], false, Owner::current()).unwrap();
        set(&global, "1");
        release(Owner::current()).unwrap();
        assert_eq!(on(&conf(V4, "b0", "forwarding")), "1");
    });
}

#[test]
fn a_dead_runs_changes_are_put_back_by_the_next() {
    in_namespace(|| {
        set(&Path::new(V4).join("ip_forward"), "0");
        let dead = Owner {
            start: Owner::current().start + 1,
            ..Owner::current()
        };
        acquire("a0", &["b0".to_owned()], false, dead).unwrap();
        assert_eq!(on(&conf(V4, "b0", "forwarding")), "1");
        acquire("a0", &[], false, Owner::current()).unwrap();
        assert_eq!(on(&conf(V4, "b0", "forwarding")), "0");
        release(Owner::current()).unwrap();
    });
}

/// What kernels before 6.17 need: the global switch, with router advertisements kept.
#[test]
fn the_global_ipv6_switch_is_put_back_with_every_interface() {
    in_namespace(|| {
        let global = conf(V6, "all", "forwarding");
        set(&global, "0");
        set(&conf(V6, "a0", "forwarding"), "1");
        set(&conf(V6, "b0", "accept_ra"), "1");
        let own = format!("{LINK_PREFIX}7");
        let made = std::process::Command::new("ip")
            .args(["link", "add", &own, "type", "veth", "peer", "name", "c0"])
            .status()
            .unwrap();
        assert!(made.success());
        let mut book = Book::open().unwrap();
        book.state.users.push(Owner::current());
        book.turn_on_global_v6(&global).unwrap();
        assert_eq!(
            book.interfaces(),
            ["b0", "c0"],
            "our own link has to route to all the others"
        );
        drop(book);
        assert_eq!(on(&global), "1");
        assert_eq!(on(&conf(V6, "b0", "forwarding")), "1");
        assert_eq!(
            on(&conf(V6, "b0", "accept_ra")),
            "2",
            "routes learned from routers have to stay"
        );
        release(Owner::current()).unwrap();
        assert_eq!(on(&global), "0");
        assert_eq!(
            on(&conf(V6, "a0", "forwarding")),
            "1",
            "it was a router before"
        );
        assert_eq!(on(&conf(V6, "b0", "forwarding")), "0");
        assert_eq!(on(&conf(V6, "b0", "accept_ra")), "1");
    });
}

#[test]
fn notes_of_namespaces_that_are_gone_go_too() {
    in_namespace(|| {
        // No namespace has such a small number.
        let note = |number: u32, users: Vec<Owner>| {
            let path = Path::new(DIRECTORY).join(format!("{PREFIX}{number}"));
            let state = State {
                users,
                ..State::default()
            };
            fs::create_dir_all(DIRECTORY).unwrap();
            fs::write(&path, serde_json::to_vec(&state).unwrap()).unwrap();
            path
        };
        let dead = Owner {
            start: 1,
            ..Owner::current()
        };
        let unseen = Owner {
            pidns: 1,
            ..Owner::current()
        };
        let gone = note(11, vec![dead]);
        let elsewhere = note(12, vec![dead, unseen]);
        acquire("a0", &["b0".to_owned()], false, Owner::current()).unwrap();
        // Another test may be looking at the same note at this moment.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while gone.exists() && std::time::Instant::now() < until {
            std::thread::sleep(std::time::Duration::from_millis(5));
            sweep();
        }
        let left = (gone.exists(), elsewhere.exists());
        release(Owner::current()).unwrap();
        fs::remove_file(elsewhere).unwrap();
        assert_eq!(left, (false, true));
        let _ = fs::remove_dir(DIRECTORY);
    });
}

#[test]
fn this_namespace_is_alive() {
    let own = fs::metadata("/proc/self/ns/net").unwrap().ino();
    assert!(namespaces().contains(&own));
}
