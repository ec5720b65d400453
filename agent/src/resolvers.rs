//! The resolvers of this host.
//!
//! In:  /etc/resolv.conf.
//! Out: the addresses a host's own programs ask, in order.
//! Not here: asking them (`dnsproxy`).

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6},
};

use resolv_conf::{Config, ScopedIp};

const PATH: &str = "/etc/resolv.conf";
const PORT: u16 = 53;

/// Why the host's resolvers are not known.
#[derive(Debug, thiserror::Error)]
pub enum ResolversError {
    /// The file cannot be read.
    #[error("cannot read `{PATH}`: {0}; name resolvers with --dns")]
    Read(io::Error),
    /// The file cannot be understood.
    #[error("cannot understand `{PATH}`: {0}; name resolvers with --dns")]
    Parse(resolv_conf::ParseError),
}

/// The resolvers of /etc/resolv.conf; without any, the local host's (resolv.conf(5)).
///
/// # Errors
/// When the file is there but cannot be read or understood.
pub(crate) fn of_host() -> Result<Vec<SocketAddr>, ResolversError> {
    match fs::read(PATH) {
        Ok(bytes) => parse(&bytes).map_err(ResolversError::Parse),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(vec![local()]),
        Err(error) => Err(ResolversError::Read(error)),
    }
}

fn parse(bytes: &[u8]) -> Result<Vec<SocketAddr>, resolv_conf::ParseError> {
    let mut all: Vec<_> = Config::parse(bytes)?
        .nameservers
        .iter()
        .filter_map(address)
        .collect();
    all.dedup();
    if all.is_empty() {
        all.push(local());
    }
    Ok(all)
}

/// The socket address; a zone that names no interface of this host has none.
fn address(ip: &ScopedIp) -> Option<SocketAddr> {
    Some(match ip {
        ScopedIp::V4(ip) => SocketAddr::new(IpAddr::V4(*ip), PORT),
        ScopedIp::V6(ip, None) => SocketAddr::new(IpAddr::V6(*ip), PORT),
        ScopedIp::V6(ip, Some(zone)) => {
            let index = match zone.parse() {
                Ok(index) => index,
                Err(_) => nix::net::if_::if_nametoindex(zone.as_str()).ok()?,
            };
            SocketAddr::V6(SocketAddrV6::new(*ip, PORT, 0, index))
        }
    })
}

fn local() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PORT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nameservers_in_order_the_stub_included() {
        let text =
            b"search a.test\nnameserver 127.0.0.53\nnameserver 2001:db8::53\noptions edns0\n";
        let all: Vec<_> = parse(text)
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(all, ["127.0.0.53:53", "[2001:db8::53]:53"]);
    }

    #[test]
    fn no_nameserver_means_the_local_host() {
        assert_eq!(parse(b"search a.test\n").unwrap(), [local()]);
    }
}
