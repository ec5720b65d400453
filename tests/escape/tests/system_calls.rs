//! Ways out through the kernel's interface: sockets of other families, other system call tables, helpers.

use anyhow::Result;
use escape::Attack;

/// name: what the attacker runs => the refusal.
macro_rules! rows {
    ($($(#[$doc:meta])* $name:ident: $attack:expr => $refusal:expr;)*) => {$(
        $(#[$doc])*
        #[test]
        fn $name() -> Result<()> {
            $attack.alone()?.refused($refusal)
        }
    )*};
}

const NO_FAMILY: &str = "Address family not supported";
const NOT_PERMITTED: &str = "Operation not permitted";

fn socket(family: u32, kind: u32, protocol: u32) -> Attack {
    Attack::perl(&format!(
        "print socket(my $s, {family}, {kind}, {protocol}) ? \"ESCAPED\" : \"refused: $!\""
    ))
}

/// A system call by its number on x86_64 and on aarch64.
fn call(x86_64: u64, aarch64: u64, arguments: &str) -> Attack {
    let number = if cfg!(target_arch = "x86_64") {
        x86_64
    } else {
        aarch64
    };
    Attack::perl(&format!(
        "my $b = \"\\0\" x 256; my $n = \"user\\0\"; \
         print syscall({number}, {arguments}) >= 0 ? \"ESCAPED\" : \"refused: $!\""
    ))
}

rows! {
    /// Frames written by hand.
    packet_socket: socket(17, 3, 0) => NO_FAMILY;
    /// A virtual machine's host is reached without any network interface.
    vsock: socket(40, 1, 0) => NO_FAMILY;
    bluetooth: socket(31, 3, 0) => NO_FAMILY;
    can: socket(29, 3, 1) => NO_FAMILY;
    kernel_crypto: socket(38, 5, 0) => NO_FAMILY;
    xdp: socket(44, 3, 0) => NO_FAMILY;
    kernel_connection_multiplexer: socket(41, 5, 0) => NO_FAMILY;
    raw_ipv4: socket(2, 3, 1) => NOT_PERMITTED;
    raw_ipv6: socket(10, 3, 58) => NOT_PERMITTED;
    /// Root keeps no CAP_NET_RAW either.
    raw_ipv4_as_root: socket(2, 3, 255).as_root() => NOT_PERMITTED;
    packet_socket_as_root: socket(17, 3, 0).as_root() => NO_FAMILY;
    /// Bits above an int do not count to the kernel, and must not to the filter.
    family_with_high_bits: call(41, 198, "17 + (1 << 32), 3, 0") => NO_FAMILY;
    socketpair_of_another_family: call(53, 199, "40, 1, 0, $b") => NO_FAMILY;

    /// io_uring makes sockets without the socket system call.
    io_uring: call(425, 425, "8, $b") => "Function not implemented";
    /// Typing into the shell that started namegate.
    tiocsti: Attack::perl("my $c = \"x\"; print ioctl(STDIN, 0x5412, $c) ? \"ESCAPED\" : \"refused: $!\"") => NOT_PERMITTED;
    tioclinux: Attack::perl("my $c = \"\\2\"; print ioctl(STDIN, 0x541c, $c) ? \"ESCAPED\" : \"refused: $!\"") => NOT_PERMITTED;
    /// The kernel resolves a `dns_resolver` key by a helper in the machine's own namespaces.
    request_key: call(249, 218, "$n, $n, 0, 0") => NOT_PERMITTED;
    add_key: call(248, 217, "$n, $n, $b, 1, -3") => NOT_PERMITTED;
    keyctl: call(250, 219, "0, -3, 0") => NOT_PERMITTED;
    bpf: call(321, 280, "0, $b, 64") => NOT_PERMITTED;
    bpf_as_root: call(321, 280, "0, $b, 64").as_root() => NOT_PERMITTED;
    /// Opens any file of a mount by its inode number, masked or not.
    open_by_handle_as_root: call(304, 265, "0, $b, 0").as_root() => NOT_PERMITTED;
    mount_as_root: Attack::new("mount -t tmpfs none /mnt 2>&1 && echo ESCAPED").as_root() => "permission denied";
    unmount_as_root: Attack::new("umount /run 2>&1 && echo ESCAPED").as_root() => "must be superuser";
    mknod_as_root: Attack::new("mknod /tmp/namegate-escape-node c 1 1 2>&1 && echo ESCAPED").as_root() => NOT_PERMITTED;
    /// Files of the kernel that uid 0 owns, whatever capabilities it has.
    core_pattern_as_root: Attack::new("echo x 2>&1 > /proc/sys/kernel/core_pattern && echo ESCAPED").as_root()
        => "Read-only file system";
    sysrq_as_root: Attack::new("echo h 2>&1 > /proc/sysrq-trigger && echo ESCAPED").as_root()
        => "bash: line 1: /proc/sysrq-trigger: ";
    sysfs_as_root: Attack::new("echo 1 2>&1 > /sys/class/net/lo/mtu && echo ESCAPED").as_root()
        => "Read-only file system";
}

/// The second table of x86_64 shares the architecture word and numbers calls from bit 30 up.
#[cfg(target_arch = "x86_64")]
#[test]
fn x32_table() -> Result<()> {
    call(0x4000_0000 + 41, 0, "17, 3, 0")
        .alone()?
        .refused(NO_FAMILY)
}

/// What ordinary programs need is still there.
#[test]
fn allowed_families_work() -> Result<()> {
    let program = "for my $f ([1,1,0],[2,1,0],[2,2,0],[10,1,0],[16,3,0]) { \
                   socket(my $s, $f->[0], $f->[1], $f->[2]) or print \"no $f->[0]: $!\"; } print \"done\"";
    Attack::perl(program).alone()?.wrote("done")
}
