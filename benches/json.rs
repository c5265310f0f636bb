//! Reading of json members: two fields of what img2dataset writes, ordinary and with what only Python writes in it, beside
//! serde_json's own reading of the whole. Prints microseconds a member: medians of interleaved rounds.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use std::hint::black_box;
use std::time::Instant;

use serde_json::Value;
use tldr_loader::json::Fields;

const ORDINARY: &str = r#"{"url": "https://example.org/pictures/2021/07/a-red-kite-over-the-harbour.jpg",
"key": "000000012", "caption": "A red kite over the harbour – seen from the north \u00e9", "status": "success",
"error_message": null, "width": 384, "height": 256, "original_width": 1280, "original_height": 853,
"exif": "{\"Image ImageWidth\": \"1280\", \"Image Make\": \"Canon\", \"EXIF DateTime\": \"2021:07:04 12:31:07\"}",
"sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "similarity": 0.3127440810203552,
"NSFW": "UNLIKELY", "punsafe": 0.000213, "pwatermark": 0.12, "aesthetic": 5.61, "hash": -3422342342332}"#;

fn main() {
    // As `cargo test --benches` runs it: small.
    let is_test = !std::env::args().any(|arg| arg == "--bench") && std::env::var("JSON_MEMBERS").is_err();
    let members: u32 = if is_test { 100 } else { 20_000 };
    let dialect = ORDINARY.replace("0.12", "NaN");
    let wanted = |name: &str| name == "caption" || name == "similarity";
    let read = |json: &str| {
        let fields = Fields::read(json.as_bytes(), wanted).unwrap();
        assert!(fields.value("caption").is_some() && fields.value("similarity").is_some());
        fields
    };
    let (mut whole, mut own, mut of_python) = (vec![], vec![], vec![]);
    for _ in 0..9 {
        whole.push(micros(members, || {
            drop(black_box(serde_json::from_str::<Value>(black_box(ORDINARY)).unwrap()))
        }));
        own.push(micros(members, || drop(black_box(read(black_box(ORDINARY))))));
        of_python.push(micros(members, || drop(black_box(read(black_box(&dialect))))));
    }
    println!("{} bytes, {members} members, 9 rounds, microseconds a member:", ORDINARY.len());
    println!("  serde_json, all of it        {:6.2}", median(whole));
    println!("  two fields                   {:6.2}", median(own));
    println!("  two fields, a NaN beside     {:6.2}", median(of_python));
}

fn micros(count: u32, mut work: impl FnMut()) -> f64 {
    let start = Instant::now();
    (0..count).for_each(|_| work());
    start.elapsed().as_secs_f64() * 1e6 / f64::from(count)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
