//! Any bytes as a record that the Kinesis Producer Library has put together: the user records lie within it, one after
//! the other, whether or not its checksum was made for it.

#![no_main]

use ingest::source::kinesis::aggregated::{MAGIC, read};
use libfuzzer_sys::fuzz_target;
use md5::{Digest, Md5};

fuzz_target!(|message: &[u8]| {
    check(message);
    let sealed = [MAGIC, message, Md5::digest(message).as_slice()].concat();
    assert!(read(&sealed).is_some());
    check(&sealed);
});

fn check(data: &[u8]) {
    let Some(Ok(users)) = read(data) else { return };
    let whole = data.as_ptr_range();
    let mut end = whole.start;
    for user in users {
        let span = user.as_ptr_range();
        assert!(end <= span.start && span.end <= whole.end);
        end = span.end;
    }
}
