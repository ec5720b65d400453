//! Names of DNS query types and response codes, for people.
//!
//! In:  numbers of the IANA registry "Domain Name System (DNS) Parameters".
//! Out: mnemonics, or `TYPE64` (RFC 3597 §5) where there is none here.
//! Not here: deciding anything by them.

/// `A`, `AAAA`, … or `TYPE<n>`.
pub(crate) fn name(number: u16) -> String {
    match number {
        1 => "A",
        2 => "NS",
        5 => "CNAME",
        6 => "SOA",
        12 => "PTR",
        15 => "MX",
        16 => "TXT",
        28 => "AAAA",
        33 => "SRV",
        35 => "NAPTR",
        39 => "DNAME",
        43 => "DS",
        46 => "RRSIG",
        47 => "NSEC",
        48 => "DNSKEY",
        52 => "TLSA",
        64 => "SVCB",
        65 => "HTTPS",
        255 => "ANY",
        257 => "CAA",
        other => return format!("TYPE{other}"),
    }
    .to_owned()
}

/// `Refused`, … or the number.
pub(crate) fn rcode(number: u16) -> String {
    match number {
        0 => "No Error",
        1 => "Format Error",
        2 => "Server Failure",
        3 => "Non-Existent Domain",
        4 => "Not Implemented",
        5 => "Query Refused",
        other => return other.to_string(),
    }
    .to_owned()
}
