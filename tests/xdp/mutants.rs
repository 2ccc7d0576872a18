//! Damaged frames by the million: whatever the program answers must be what an independent reading of the
//! frame and the socket path's own answer function say.

use std::time::Instant;

use crate::frames::{
    CLIENT_MAC, PORT, SERVER_MAC, SERVER_V4, SERVER_V6, WRAPPINGS, read_laxly, read_strictly,
};
use crate::world::World;

const FRAMES: u64 = 1_000_000;

/// xorshift64*: any sequence will do, but the same one for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % bound
    }
}

/// Changes a frame in one to four ways; now and then in none.
fn damage(frame: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..random.below(5) {
        let at = random.below(frame.len());
        match random.below(12) {
            0..4 => frame[at] ^= 1 << random.below(8),
            4 | 5 => frame[at] = random.next() as u8,
            6 => frame.truncate(at.max(14)),
            7 => frame.resize(frame.len() + random.below(64), random.next() as u8),
            8 => frame[at..].fill(0),
            9 => {
                let from = random.below(frame.len());
                let len = random.below(32).min(frame.len() - at.max(from));
                frame.copy_within(from..from + len, at);
            }
            // In the headers, where it matters most.
            10 => {
                let at = random.below(frame.len().min(62));
                frame[at] ^= 1 << random.below(8);
            }
            _ => {
                let at = random.below(frame.len().min(62));
                frame[at] = [0, 0xff, 0x81, 0x08, 0x45, 0x60, 17][random.below(7)];
            }
        }
    }
}

/// What of a frame was not the request's: where the answer may have come from regardless.
fn acceptable(frame: &[u8]) -> bool {
    // The decoder knows checksums that are right. Those that may be left out are looked at here.
    if read_strictly(frame).is_ok() {
        return true;
    }
    WRAPPINGS.iter().any(|wrapping| {
        let (ip, udp) = (wrapping.ip_at(), wrapping.udp_at());
        let Some(field) = frame.get(udp + 6..udp + 8) else { return false };
        let mut mended = frame.to_vec();
        let addresses = if wrapping.v6 { ip + 8..ip + 40 } else { ip + 12..ip + 20 };
        let Some(addresses) = frame.get(addresses) else { return false };
        let words = addresses.chunks_exact(2).map(|pair| u64::from(u16::from_be_bytes([pair[0], pair[1]])));
        let fold = |mut sum: u64| {
            while sum > 0xffff {
                sum = (sum & 0xffff) + (sum >> 16);
            }
            sum as u16
        };
        let pseudo = words.sum::<u64>() + 17 + 96;
        let field = u16::from_be_bytes([field[0], field[1]]);
        let left_out = field == 0 && !wrapping.v6;
        if !left_out && field != fold(pseudo) {
            return false;
        }
        // With the checksum that hardware would have written it must be right in every other respect.
        mended[udp + 6..udp + 8].fill(0);
        let rest = mended[udp..]
            .chunks(2)
            .map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0)));
        let sum = !fold(pseudo + rest.sum::<u64>());
        mended[udp + 6..udp + 8].copy_from_slice(&(if sum == 0 { 0xffff } else { sum }).to_be_bytes());
        read_strictly(&mended).is_ok()
    })
}

#[test]
fn a_million_damaged_frames_are_never_answered_wrongly() {
    let mut world = World::new();
    let seed = 0x5eed_0000 + u64::from(std::process::id());
    let mut random = Random(seed);
    let assets: Vec<String> = world.catalogue.assets().iter().map(|a| a.symbol.to_string()).collect();
    let (mut answered, begun) = (0_u64, Instant::now());
    let mut pool = Vec::new();
    for n in 0..FRAMES {
        if n % 4_096 == 0 {
            // Requests grow old: the window is ten seconds.
            world.release();
            pool = (0..24)
                .map(|i| {
                    let asset = &assets[random.below(assets.len())];
                    let mut payload = world.request(asset, random.next());
                    if i % 8 == 7 {
                        payload.resize(88 + random.below(200), 0);
                    }
                    WRAPPINGS[i % WRAPPINGS.len()].frame(&payload)
                })
                .collect();
        }
        let mut frame = pool[random.below(pool.len())].clone();
        damage(&mut frame, &mut random);
        let Some(out) = world.run(&frame) else { continue };
        answered += 1;
        let context = || format!("seed {seed}, frame {n}: {frame:02x?}");
        assert!(acceptable(&frame), "answered, though it is not right: {}", context());
        let answer = read_strictly(&out).unwrap_or_else(|e| panic!("{e}: {}", context()));
        let payload = read_laxly(&frame).unwrap_or_else(|| panic!("no payload: {}", context()));
        let ours = [SERVER_V4.into(), SERVER_V6.into()];
        assert!(ours.contains(&answer.from.0) && answer.from.1 == PORT, "{}", context());
        assert_eq!(answer.macs.0, SERVER_MAC, "{}", context());
        assert!(answer.macs.1 == CLIENT_MAC || frame[6..12] == answer.macs.1, "{}", context());
        let expected = world.socket(answer.to.0, &payload);
        assert_eq!(expected.as_ref(), Some(&answer.payload), "{}", context());
    }
    println!("{answered} of {FRAMES} answered, in {:.1} s", begun.elapsed().as_secs_f64());
    assert!(answered > FRAMES / 20 && answered < FRAMES / 2, "{answered}");
    assert_eq!(world.answered(), answered, "every answer was written down, and nothing else");
}
