//! Any bytes as the caption and the json of a sample.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use tldr_loader::Shard;
use tldr_loader::shard::{ReadOptions, ShardReader};

fuzz_target!(|data: &[u8]| {
    let cut = data.iter().position(|&b| b == 0).unwrap_or(data.len());
    let (text, json) = (&data[..cut], data.get(cut + 1..).unwrap_or_default());
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in [("k.jpg", &b"image"[..]), ("k.txt", text), ("k.json", json)] {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        if builder.append_data(&mut header, name, bytes).is_err() {
            return;
        }
    }
    let Ok(bytes) = builder.into_inner() else { return };
    let shard = Shard::local("s/00000.tar", "s");
    for caption_key in [None, Some("caption".to_owned())] {
        let options = ReadOptions { caption_key, ..ReadOptions::default() };
        let mut reader = ShardReader::over(&shard, Cursor::new(bytes.clone()), &options).unwrap();
        if let Ok(sample) = reader.next_group().unwrap().unwrap() {
            assert!(!sample.caption.is_empty() && sample.caption.trim() == sample.caption);
            let _ = tldr_loader::text::clean(&sample.caption);
        }
        assert!(reader.next_group().unwrap().is_none());
    }
});
