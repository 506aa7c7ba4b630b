//! Tests the messages between ranks.

use omr_runtime::ranks::wire::Header;

#[test]
fn a_header_reads_back_and_is_not_read_in_part() {
    let header = Header { number: 7, bytes: 1 << 40, what: "losses".to_owned() };
    let bytes = header.encode();
    assert_eq!(Header::read(&bytes[..]).unwrap(), header);
    assert!((0..bytes.len()).all(|len| Header::read(&bytes[..len]).is_err()));
}
