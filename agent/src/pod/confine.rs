//! What the command may not do: capabilities and system calls.
//!
//! In:  the user it runs as, whether `--allow-sudo` was given.
//! Out: a smaller bounding set, no ambient capabilities, a seccomp filter.
//! Not here: what it may not see (`mounts`), where its packets may go (the programs on its link).

use std::collections::BTreeMap;

use caps::{CapSet, Capability};
use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::user::InvokingUser;

/// What root (or sudo) keeps: enough to install packages and change users, nothing that reaches the network stack,
/// the kernel, devices or other processes' memory.
const CONTAINER: [Capability; 12] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
    Capability::CAP_KILL,
    Capability::CAP_SETGID,
    Capability::CAP_SETUID,
    Capability::CAP_SETPCAP,
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_SYS_CHROOT,
    Capability::CAP_SETFCAP,
    Capability::CAP_AUDIT_WRITE,
];

/// Removes from the bounding set what no descendant may ever regain.
pub(crate) fn cut_bounding_set(user: &InvokingUser, allow_sudo: bool) -> Result<(), String> {
    let keep: &[Capability] = if user.is_root() || allow_sudo {
        &CONTAINER
    } else {
        &[]
    };
    for capability in caps::runtime::thread_all_supported() {
        if !keep.contains(&capability) {
            caps::drop(None, CapSet::Bounding, capability)
                .map_err(|error| format!("bounding set, {capability}: {error}"))?;
        }
    }
    Ok(())
}

/// Empties what an exec would otherwise carry over. Changing to an ordinary user has cleared the rest already.
pub(crate) fn drop_capabilities(user: &InvokingUser) -> Result<(), String> {
    let failed = |set: &str, error: caps::errors::CapsError| format!("{set} capabilities: {error}");
    caps::clear(None, CapSet::Ambient).map_err(|error| failed("ambient", error))?;
    caps::clear(None, CapSet::Inheritable).map_err(|error| failed("inheritable", error))?;
    let keep = if user.is_root() {
        CONTAINER.into_iter().collect()
    } else {
        caps::CapsHashSet::new()
    };
    caps::set(None, CapSet::Effective, &keep).map_err(|error| failed("effective", error))?;
    caps::set(None, CapSet::Permitted, &keep).map_err(|error| failed("permitted", error))
}

/// Installs the filters. With `--allow-sudo` there are none: a filter without no_new_privs would need CAP_SYS_ADMIN
/// here, and with it sudo would not work.
pub(crate) fn filter_system_calls(allow_sudo: bool) -> Result<(), String> {
    if allow_sudo {
        return Ok(());
    }
    for program in programs()? {
        seccompiler::apply_filter(&program).map_err(|error| format!("seccomp: {error}"))?;
    }
    Ok(())
}

/// One filter for each answer; a system call gets the strictest of them. seccompiler kills a process that enters the
/// kernel by another architecture's table (`int 0x80`).
fn programs() -> Result<Vec<BpfProgram>, String> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)
        .map_err(|error| format!("seccomp: {error}"))?;
    [
        (libc::EAFNOSUPPORT, families()?),
        (
            libc::ENOSYS,
            always(&[
                libc::SYS_io_uring_setup,
                libc::SYS_io_uring_enter,
                libc::SYS_io_uring_register,
            ]),
        ),
        (libc::EPERM, refused()?),
    ]
    .into_iter()
    .map(|(errno, rules)| {
        let errno = u32::try_from(errno).map_err(|error| format!("seccomp: {error}"))?;
        let filter = SeccompFilter::new(
            rules,
            SeccompAction::Allow,
            SeccompAction::Errno(errno),
            arch,
        );
        filter
            .and_then(BpfProgram::try_from)
            .map_err(|error| format!("seccomp: {error}"))
    })
    .collect()
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Sockets outside these families either leave by a path without our programs (vsock, Bluetooth, CAN) or are kernel
/// surface nobody asked for.
fn families() -> Result<Rules, String> {
    let mut rules = Rules::new();
    let others = [
        libc::AF_UNIX,
        libc::AF_INET,
        libc::AF_INET6,
        libc::AF_NETLINK,
    ]
    .into_iter()
    .map(|family| condition(0, SeccompCmpOp::Ne, u64::from(family.unsigned_abs())))
    .collect::<Result<Vec<_>, _>>()?;
    for call in [libc::SYS_socket, libc::SYS_socketpair] {
        add(&mut rules, call, vec![rule(others.clone())?]);
    }
    Ok(rules)
}

/// Calls that reach outside the pod: typing into the terminal we share with the invoker's shell, asking the kernel to
/// run a helper in the host's namespaces (`request_key` resolves DNS names there), and loading programs.
fn refused() -> Result<Rules, String> {
    let mut rules = always(&[
        libc::SYS_add_key,
        libc::SYS_request_key,
        libc::SYS_keyctl,
        libc::SYS_bpf,
        libc::SYS_kexec_load,
        libc::SYS_kexec_file_load,
        libc::SYS_open_by_handle_at,
    ]);
    let requests = [libc::TIOCSTI, libc::TIOCLINUX]
        .into_iter()
        .map(|request| rule(vec![condition(1, SeccompCmpOp::Eq, request & 0xffff_ffff)?]))
        .collect::<Result<Vec<_>, _>>()?;
    add(&mut rules, libc::SYS_ioctl, requests.clone());
    #[cfg(target_arch = "x86_64")]
    rules.insert(X32 | X32_IOCTL, requests);
    Ok(rules)
}

fn always(calls: &[i64]) -> Rules {
    let mut rules = Rules::new();
    for call in calls {
        add(&mut rules, *call, Vec::new());
    }
    rules
}

/// x86_64 has a second table behind bit 30 (x32) that shares the architecture word.
#[cfg(target_arch = "x86_64")]
const X32: i64 = 0x4000_0000;
/// x32 numbers ioctl anew.
#[cfg(target_arch = "x86_64")]
const X32_IOCTL: i64 = 514;

fn add(rules: &mut Rules, call: i64, when: Vec<SeccompRule>) {
    #[cfg(target_arch = "x86_64")]
    rules.insert(X32 | call, when.clone());
    rules.insert(call, when);
}

fn rule(conditions: Vec<SeccompCondition>) -> Result<SeccompRule, String> {
    SeccompRule::new(conditions).map_err(|error| format!("seccomp: {error}"))
}

/// Families and ioctl requests are 32 bits to the kernel, whatever the upper half of the register says.
fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, String> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
        .map_err(|error| format!("seccomp: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_compile() {
        assert_eq!(programs().unwrap().len(), 3);
    }

    #[test]
    fn nothing_that_reaches_the_network_stack_or_other_processes_is_kept() {
        for forbidden in [
            Capability::CAP_NET_ADMIN,
            Capability::CAP_NET_RAW,
            Capability::CAP_SYS_ADMIN,
            Capability::CAP_SYS_PTRACE,
            Capability::CAP_SYS_MODULE,
            Capability::CAP_SYS_RAWIO,
            Capability::CAP_DAC_READ_SEARCH,
            Capability::CAP_MKNOD,
            Capability::CAP_BPF,
        ] {
            assert!(!CONTAINER.contains(&forbidden), "{forbidden}");
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_x32_table_is_filtered_too() {
        let rules = families().unwrap();
        assert!(rules.contains_key(&(X32 | libc::SYS_socket)));
        assert!(refused().unwrap().contains_key(&(X32 | X32_IOCTL)));
    }
}
