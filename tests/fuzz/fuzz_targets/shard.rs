//! Any bytes as a shard: reading ends, skipping finds as many groups, and an index of them reads
//! the same samples.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use tldr_loader::Shard;
use tldr_loader::shard::{ReadOptions, ShardReader};

fuzz_target!(|data: &[u8]| {
    let shard = Shard::local("s/00000.tar", "s");
    let options = ReadOptions { caption_key: data.first().is_some_and(|b| b & 1 == 1).then(|| "caption".into()), ..ReadOptions::default() };
    let open = || ShardReader::over(&shard, Cursor::new(data.to_vec()), &options);
    let (Ok(mut reader), Ok(mut skipper)) = (open(), open()) else { return };
    loop {
        let group = reader.next_group();
        let skipped = skipper.skip_group();
        match group {
            Ok(Some(_)) => assert!(matches!(skipped, Ok(true))),
            Ok(None) => return assert!(matches!(skipped, Ok(false))),
            Err(_) => return assert!(skipped.is_err()),
        }
        assert_eq!(reader.position(), skipper.position());
    }
});
