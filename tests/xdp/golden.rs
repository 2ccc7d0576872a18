//! Golden frames: what is answered is what the socket path answers, what is not is left as it came.

use std::net::IpAddr;
use std::time::Duration;

use beast::account::Token;
use beast::ledger::{RecordId, Transport};
use beast::limits::XDP_SHARD_FIRST;
use beast::price::ExchangeId;
use beast::xdp::Sizes;

use crate::frames::{CLIENT_MAC, CLIENT_V4, PORT, SERVER_MAC, WRAPPINGS, Wrapping, read_strictly};
use crate::world::{EPOCH, FRESH, World};

const PLAIN: Wrapping = WRAPPINGS[0];

/// The frame is answered, and with the very bytes that the socket path answers.
fn same_as_socket(world: &mut World, frame: &[u8]) {
    let asked = read_strictly(frame).unwrap();
    let out = world.run(frame).expect("answered in the kernel");
    assert_eq!(out.len(), frame.len());
    let answer = read_strictly(&out).unwrap();
    assert_eq!((answer.from, answer.to), (asked.to, asked.from));
    assert_eq!(answer.macs, (SERVER_MAC, CLIENT_MAC));
    let expected = world.socket(asked.from.0, &asked.payload).unwrap();
    assert_eq!(answer.payload, expected);
}

#[test]
fn every_asset_in_every_wrapping_is_answered_as_by_the_socket() {
    let mut world = World::new();
    let assets: Vec<_> = world.catalogue.assets().iter().map(|asset| asset.symbol).collect();
    let mut id = 0;
    for wrapping in WRAPPINGS {
        for asset in &assets {
            id += 1;
            let payload = world.request(asset.as_str(), id);
            same_as_socket(&mut world, &wrapping.frame(&payload));
        }
    }
    assert_eq!(world.answered(), id);
    assert_eq!(world.program.lanes.passed(world.lane).iter().sum::<u64>(), 0);
}

#[test]
fn the_documents_example_is_answered_byte_for_byte() {
    let token = Token::parse(b"tb_028t5cy4tqkff00041061050r3gg28a1c60t3gf2nhhpc6").unwrap();
    let mut world = World::of(token, Sizes::default());
    let then_ns = 1_763_650_000_200_000_000_i64;
    world.tell_time(then_ns - i64::try_from(world.now().unix.0).unwrap());
    world.price(0, "65000.12", FRESH);
    world.follow();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut made = String::new();
    for (name, wrapping) in [("ipv4", WRAPPINGS[0]), ("ipv4-vlan", WRAPPINGS[1]), ("ipv6", WRAPPINGS[3])] {
        let request = wrapping.frame(&world.request_of(&world.token, "BTC", 7, 1_763_650_000_200, None));
        let mut answer = world.run(&request).expect("answered");
        // The record's lane is the processor's, and with it the rest: those the file cannot know.
        let payload = wrapping.payload_at();
        assert_eq!(answer[payload + 68..payload + 70], (XDP_SHARD_FIRST + world.lane as u16).to_le_bytes());
        answer.truncate(payload + 64);
        answer[wrapping.udp_at() + 6..wrapping.udp_at() + 8].fill(0);
        made += &format!("{name}-request {}\n{name}-answer {}\n", hex(&request), hex(&answer));
    }
    let kept = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/xdp.txt")).unwrap();
    assert_eq!(kept, made, "made:\n{made}");
}

#[test]
fn a_request_without_a_checksum_or_with_a_part_of_one_is_answered() {
    let world = World::new();
    let payload = world.request("BTC", 1);
    let mut none = PLAIN.frame(&payload);
    let at = PLAIN.udp_at() + 6;
    none[at..at + 2].fill(0);
    assert!(world.run(&none).is_some());
    for wrapping in WRAPPINGS {
        let frame = wrapping.frame(&payload);
        let mut left_to_hardware = frame.clone();
        // Sum of the pseudo header: addresses, protocol, length.
        let (ip, udp) = (wrapping.ip_at(), wrapping.udp_at());
        let addresses = if wrapping.v6 { &frame[ip + 8..ip + 40] } else { &frame[ip + 12..ip + 20] };
        let words = addresses.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
        let mut sum = words.sum::<u32>() + 17 + 96;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        left_to_hardware[udp + 6..udp + 8].copy_from_slice(&u16::try_from(sum).unwrap().to_be_bytes());
        let out = world.run(&left_to_hardware).expect("answered");
        read_strictly(&out).unwrap();
    }
    assert_eq!(world.answered(), 7);
}

#[test]
fn what_a_shard_refuses_is_passed_up_unchanged_and_refused_there() {
    let mut world = World::new();
    let now_ms = world.now().unix.ms();
    let peer = IpAddr::from(CLIENT_V4);
    let stranger = Token::generate().unwrap();
    let of = |token: &Token, asset: &str, time_ms| world.request_of(token, asset, 1, time_ms, None);
    let mut wrong_tag = of(&world.token, "BTC", now_ms);
    wrong_tag[50] ^= 1;
    let mut not_zero = of(&world.token, "BTC", now_ms);
    not_zero[87] = 1;
    let mut lower_case = of(&world.token, "BTC", now_ms);
    lower_case[32] = b'b';
    let cases = [
        ("key", of(&stranger, "BTC", now_ms)),
        ("key", of(&world.expired, "BTC", now_ms)),
        ("tag", wrong_tag),
        ("window", of(&world.token, "BTC", now_ms - 10_100)),
        ("window", of(&world.token, "BTC", now_ms + 10_100)),
        ("window", of(&world.token, "BTC", 0)),
        ("window", of(&world.token, "BTC", u64::MAX)),
        ("asset", of(&world.token, "NOPE", now_ms)),
        ("not_sure", not_zero),
        ("tag", lower_case),
    ];
    for (number, (reason, payload)) in cases.into_iter().enumerate() {
        let frame = PLAIN.frame(&payload);
        let before = world.program.lanes.passed(world.lane);
        assert_eq!(world.run(&frame), None, "{number}: {reason}");
        let after = world.program.lanes.passed(world.lane);
        let index = beast::xdp::PASS_REASONS.iter().position(|r| *r == reason).unwrap();
        assert_eq!(after[index], before[index] + 1, "{number}: {reason} {after:?}");
        let refused = world.socket(peer, &payload).unwrap();
        assert_eq!((refused.len(), refused[3]), (40, 0x82), "{number}: {reason}");
    }
    for time_ms in [now_ms - 9_900, now_ms + 9_900] {
        let frame = PLAIN.frame(&world.request_of(&world.token, "BTC", 1, time_ms, None));
        assert!(world.run(&frame).is_some());
    }
}

#[test]
fn what_only_a_shard_can_answer_is_passed_up_and_answered_there() {
    let mut world = World::new();
    let now_ms = world.now().unix.ms();
    let mut long = world.request("BTC", 1);
    long.resize(96, 0);
    let named = world.request_of(&world.token, "BTC", 1, now_ms, ExchangeId::new(2).ok());
    let limited = world.request_of(&world.limited, "BTC", 1, now_ms, None);
    let v1 = format!(r#"{{"api_key":"{}","asset":"BTC","id":1}}"#, world.token.reveal()).into_bytes();
    for payload in [long, named, limited, v1] {
        assert_eq!(world.run(&PLAIN.frame(&payload)), None);
        let answer = world.socket(CLIENT_V4.into(), &payload).unwrap();
        assert!(answer.len() >= 88 && answer[3] != 0x82, "{answer:?}");
    }
    assert_eq!(world.answered(), 0);
}

#[test]
fn a_stale_price_is_never_answered() {
    let mut world = World::new();
    let frame = PLAIN.frame(&world.request("BTC", 1));
    assert!(world.run(&frame).is_some());
    // A deadline the program itself must look at: nothing tells it.
    world.price(0, "1", Duration::ZERO);
    let position = 0;
    let until = world.now().mono.plus(Duration::from_millis(300));
    let entry = entry_until(&world, until);
    world.program.prices.write(position, Some(entry));
    assert!(world.run(&frame).is_some(), "still fresh");
    while world.now().mono <= until {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(world.run(&frame), None, "the deadline has passed");
    world.expire();
    assert_eq!(world.run(&PLAIN.frame(&world.request("A001", 1))), None);
}

fn entry_until(world: &World, until: beast::time::MonoNs) -> beast::xdp::PriceEntry {
    let board = world.answerer.board();
    let beast::price::Selection::Fresh { listing, ready, .. } = board.select(0, None, world.now().mono)
    else {
        panic!("fresh");
    };
    beast::xdp::PriceEntry {
        asset: board.asset(0),
        exchange: world.catalogue.listing(listing).exchange,
        answer: ready.v2,
        fresh_until: until,
    }
}

#[test]
fn frames_that_are_not_plainly_ours_are_left_alone() {
    let world = World::new();
    let payload = world.request("BTC", 1);
    for wrapping in WRAPPINGS {
        let whole = wrapping.frame(&payload);
        assert!(world.run(&whole).is_some(), "{wrapping:?}");
        // A driver gives no frame shorter than an Ethernet header.
        for len in 14..whole.len() {
            assert_eq!(world.run(&whole[..len]), None, "{wrapping:?} cut to {len}");
        }
        let mut trailed = whole.clone();
        trailed.push(0);
        assert_eq!(world.run(&trailed), None, "{wrapping:?} with a trailer");
        let (ip, udp) = (wrapping.ip_at(), wrapping.udp_at());
        let mut changes = vec![
            ("to another machine", 5),
            ("to everybody", 0),
            ("from a group", 6),
            ("of another kind", ip - 1),
            ("of another IP version", ip),
            ("to another address", udp - 1),
            ("from another port", udp),
            ("to another port", udp + 3),
            ("UDP length", udp + 5),
            ("UDP checksum", udp + 6),
        ];
        if wrapping.v6 {
            changes.extend([("payload length", ip + 5), ("extension header", ip + 6), ("from", ip + 23)]);
        } else {
            changes.extend([
                ("service, so that the checksum is wrong", ip + 1),
                ("total length", ip + 3),
                ("fragment offset", ip + 7),
                ("more fragments", ip + 6),
                ("time to live, so that the checksum is wrong", ip + 8),
                ("TCP", ip + 9),
                ("IPv4 checksum", ip + 10),
                ("from", ip + 15),
            ]);
        }
        for (what, at) in changes {
            let mut changed = whole.clone();
            changed[at] ^= match at - ip.min(at) {
                6 if !wrapping.v6 => 0x20,
                0 if at == ip => 0x10,
                _ => 1,
            };
            assert_eq!(world.run(&changed), None, "{wrapping:?}: {what}");
        }
    }
    for port in [PORT + 1, 0, 8_080] {
        assert_eq!(world.run(&PLAIN.frame_to(port, &payload)), None);
    }
}

/// Writes an IPv4 header's checksum anew.
fn with_header_checksum(mut frame: Vec<u8>) -> Vec<u8> {
    frame[24..26].fill(0);
    let words = frame[14..34].chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum = words.sum::<u32>();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

#[test]
fn nobody_is_answered_who_cannot_be_a_sender() {
    let world = World::new();
    let payload = world.request("BTC", 1);
    let mut frame = PLAIN.frame(&payload);
    // Without a UDP checksum, so that only the addresses matter.
    frame[40..42].fill(0);
    let from = |address: [u8; 4]| {
        let mut changed = frame.clone();
        changed[26..30].copy_from_slice(&address);
        world.run(&with_header_checksum(changed)).is_some()
    };
    assert!(from([10, 77, 0, 9]) && from([223, 1, 1, 1]));
    for address in [[0, 1, 1, 1], [127, 0, 0, 1], [224, 0, 0, 1], [255, 255, 255, 255], [10, 77, 0, 1]] {
        assert!(!from(address), "{address:?}");
    }
    let mut expired = frame.clone();
    expired[22] = 0;
    assert_eq!(world.run(&with_header_checksum(expired)), None);
    let mut no_port = frame.clone();
    no_port[34..36].fill(0);
    assert_eq!(world.run(&no_port), None);
}

#[test]
fn every_answer_has_its_record_before_it_leaves_and_a_full_lane_answers_nothing() {
    let shift = 4;
    let mut world = World::of(Token::generate().unwrap(), Sizes { lane_shift: shift, ..Sizes::default() });
    let shard = XDP_SHARD_FIRST + u16::try_from(world.lane).unwrap();
    let mut taken = Vec::new();
    for round in 0..3_u64 {
        for n in 0..1 << shift {
            let id = round << shift | n;
            let frame = PLAIN.frame(&world.request("A007", id));
            same_as_socket(&mut world, &frame);
        }
        let full = PLAIN.frame(&world.request("A007", 99));
        assert_eq!(world.run(&full), None, "no slot is free");
        let lanes = &world.program.lanes;
        assert_eq!(lanes.passed(world.lane)[7], round + 1);
        let seen: Vec<_> = lanes.records(world.lane, round << shift).collect();
        assert_eq!(seen, lanes.records(world.lane, 0).collect::<Vec<_>>(), "what was released is gone");
        taken.extend(seen);
        world.release();
        assert_eq!(world.program.lanes.records(world.lane, 0).count(), 0);
    }
    assert_eq!(taken.len(), 3 << shift);
    for (sequence, (id, record)) in (0..).zip(&taken) {
        assert_eq!(*id, RecordId { epoch: EPOCH, shard, sequence });
        assert_eq!((record.key, record.asset, record.assets, record.exchange), (9, 9, 1, 1));
        assert_eq!((record.transport, record.status), (Transport::UdpV2, 0));
        assert_eq!(record.request.as_bytes(), sequence.to_le_bytes());
        let late_ns = world.now().unix.0.abs_diff(record.time.0);
        assert!(late_ns < 60_000_000_000, "{late_ns}");
    }
}

#[test]
fn a_revoked_key_is_not_answered_and_a_changed_price_is() {
    let mut world = World::new();
    let frame = PLAIN.frame(&world.request("BTC", 1));
    same_as_socket(&mut world, &frame);
    world.price(0, "70000.5", FRESH);
    world.follow();
    same_as_socket(&mut world, &frame);
    let none = beast::account::KeyTable::new(vec![]);
    assert_eq!(world.program.keys.replace(&none, |_| None).unwrap(), 0);
    assert_eq!(world.run(&frame), None);
}

#[test]
fn a_limited_key_spends_its_tokens_and_is_then_left_to_the_shards() {
    let mut world = World::new();
    let now_ms = world.now().unix.ms();
    let frame = PLAIN.frame(&world.request_of(&world.limited, "BTC", 1, now_ms, None));
    assert_eq!(world.run(&frame), None, "no place for tokens");
    let table = world.table();
    let place = |key: &beast::account::Key| Some(u32::from(!key.tier.unlimited));
    assert_eq!(world.program.keys.replace(&table, place).unwrap(), 0);
    let limited = beast::xdp::PASS_REASONS.iter().position(|reason| *reason == "limited").unwrap();
    for round in 1..=3 {
        world.program.tokens.add(1, 5);
        for _ in 0..5 {
            same_as_socket(&mut world, &frame);
        }
        assert_eq!(world.run(&frame), None, "all five are spent");
        assert_eq!(world.program.tokens.held(1), 0);
        assert_eq!(world.program.lanes.passed(world.lane)[limited], round);
    }
    assert_eq!(world.answered(), 15, "what was not answered was not written down");
}
