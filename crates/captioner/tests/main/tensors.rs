//! Promise: batches come in torch's own memory: what a loader decodes is not copied.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use tldr_captioner::TensorBatches;
use tldr_loader::Loader;
use tldr_loader::config::{Mode, PixelType};
use tldr_synth::{SynthOptions, write_corpus};

#[test]
fn tensors_hold_what_arrays_hold() {
    let folder = tempfile::tempdir().unwrap();
    let options =
        SynthOptions { samples: 70, shards: 2, test_samples: 0, size: 32, ..SynthOptions::default() };
    write_corpus(folder.path(), &options, &mut |_, _| {}).unwrap();
    let urls = folder.path().join("train").display().to_string();
    for pixels in [PixelType::F32, PixelType::Bf16, PixelType::U8] {
        let build = || {
            let builder = Loader::builder(urls.as_str()).mode(Mode::Eval).batch_size(16).image_size(8);
            builder.dtype(pixels).build().unwrap()
        };
        let (plain, loader) = (build(), build());
        let mut found = TensorBatches::of(&loader).unwrap();
        let mut rows = vec![];
        for expected in plain.iter().unwrap() {
            let (expected, batch) = (expected.unwrap(), found.next().unwrap().unwrap());
            assert_eq!(batch.rest.keys, expected.keys);
            assert_eq!(
                batch.images.size(),
                expected.images.shape().iter().map(|&n| n as i64).collect::<Vec<_>>()
            );
            let values = Vec::<f32>::try_from(batch.images.to_kind(tch::Kind::Float).reshape(-1)).unwrap();
            let expected: Vec<f32> = match pixels {
                PixelType::F32 => expected.images.as_f32().unwrap().to_vec(),
                PixelType::Bf16 => expected.images.as_bf16().unwrap().iter().map(|v| v.to_f32()).collect(),
                PixelType::U8 => expected.images.as_u8().unwrap().iter().map(|&v| f32::from(v)).collect(),
            };
            assert_eq!(values, expected);
            rows.push(batch.images.size()[0]);
        }
        assert_eq!(rows, [16, 16, 16, 16, 6]);
        assert!(found.next().is_none());
    }
}
