//! HTTP/1.1 as clients meet it.

use std::io::Write as _;
use std::time::Duration;

use super::Target;
use super::clients::get;
use super::udp::is_price;

pub(crate) fn answers(target: &Target<'_>) {
    let mut http = target.http();
    let key = target.token.reveal();
    let price = http.get("/price?asset=BTC", &target.token);
    assert_eq!((price.status, price.header("content-type")), (200, Some("application/json")));
    is_price(&price.json(), "BTC");
    http.write(
        format!("GET /price?asset=eth HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n").as_bytes(),
    );
    is_price(&http.read().json(), "ETH");
    let prices = http.get("/prices?assets=BTC,NOPE,ETH", &target.token).json();
    is_price(&prices["prices"][0], "BTC");
    assert_eq!(prices["prices"][1]["error"], "unknown_asset");
    is_price(&prices["prices"][2], "ETH");

    http.write(b"GET /assets HTTP/1.1\r\nHost: x\r\n\r\nGET /exchanges HTTP/1.1\r\nHost: x\r\n\r\n");
    let assets = http.read().json();
    assert!(assets["assets"].as_array().unwrap().len() >= 150);
    let exchanges = http.read().json();
    assert_eq!(exchanges["exchanges"].as_array().unwrap().len(), 7);

    for (request, status, error) in [
        ("GET /price?asset=NOPE HTTP/1.1\r\nHost: x\r\nX-API-Key: KEY\r\n\r\n", 404, "unknown_asset"),
        (
            "GET /price?asset=BTC&source=nowhere HTTP/1.1\r\nHost: x\r\nX-API-Key: KEY\r\n\r\n",
            404,
            "unknown_asset",
        ),
        ("GET /price HTTP/1.1\r\nHost: x\r\nX-API-Key: KEY\r\n\r\n", 400, "bad_request"),
        ("GET /price?asset=BTC HTTP/1.1\r\nHost: x\r\n\r\n", 401, "unauthorized"),
        ("GET /price?asset=BTC HTTP/1.1\r\nHost: x\r\nX-API-Key: nonsense\r\n\r\n", 401, "unauthorized"),
        ("GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", 404, "not_found"),
        ("DELETE /price?asset=BTC HTTP/1.1\r\nHost: x\r\n\r\n", 405, "method_not_allowed"),
    ] {
        http.write(request.replace("KEY", &key).as_bytes());
        let response = http.read();
        assert_eq!((response.status, &response.json()["error"]), (status, &error.into()), "{request}");
        assert!(!response.json()["message"].as_str().unwrap().is_empty());
        assert_eq!(response.header("allow").is_some(), status == 405);
        assert_eq!(response.header("access-control-allow-origin"), None);
    }

    // HEAD has all headers and no body.
    http.write(get("/assets", &target.token).replacen("GET", "HEAD", 1).as_bytes());
    let head = http.try_read(true).unwrap();
    let body_len = http.get("/assets", &target.token).body.len();
    assert_eq!(head.header("content-length"), Some(body_len.to_string().as_str()));

    // A browser asks first, and then with its origin.
    http.write(
        b"OPTIONS /price HTTP/1.1\r\nHost: x\r\nOrigin: https://a.example\r\n\
        Access-Control-Request-Method: GET\r\nAccess-Control-Request-Headers: x-api-key\r\n\r\n",
    );
    let preflight = http.read();
    assert_eq!((preflight.status, preflight.header("access-control-allow-origin")), (204, Some("*")));
    assert!(preflight.header("access-control-allow-headers").unwrap().contains("x-api-key"));
    http.write(b"GET /exchanges HTTP/1.1\r\nHost: x\r\nOrigin: https://a.example\r\n\r\n");
    assert_eq!(http.read().header("access-control-allow-origin"), Some("*"));
}

pub(crate) fn keeps_alive_and_closes(target: &Target<'_>) {
    let mut http = target.http();
    for n in 0..30 {
        let asset = ["BTC", "ETH", "SOL"][n % 3];
        let response = http.get(&format!("/price?asset={asset}"), &target.token);
        assert_eq!((response.json()["asset"].as_str(), response.header("connection")), (Some(asset), None));
    }
    let ask = |request: &str| {
        let mut http = target.http();
        http.write(request.as_bytes());
        let response = http.read();
        assert_eq!(response.status, 200, "{request}");
        (http, response.header("connection").map(str::to_owned))
    };
    let (mut closed, said) = ask("GET /exchanges HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_eq!(said.as_deref(), Some("close"));
    assert!(closed.closes());
    let (mut old, said) = ask("GET /exchanges HTTP/1.0\r\n\r\n");
    assert_eq!(said.as_deref(), Some("close"));
    assert!(old.closes());
    let (mut kept, said) = ask("GET /exchanges HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(said.as_deref(), Some("keep-alive"));
    kept.write(b"GET /exchanges HTTP/1.0\r\n\r\n");
    assert_eq!(kept.read().status, 200);
    assert!(kept.closes());

    // What follows a request that closes is not looked at.
    let mut http = target.http();
    http.write(b"GET /exchanges HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\nGET /assets HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(http.read().status, 200);
    assert!(http.closes());

    // A peer that has said its last word is still answered.
    let mut half = target.http();
    let request = get("/price?asset=BTC", &target.token);
    half.write(format!("{request}{request}{}", &request[..20]).as_bytes());
    half.shut_write();
    is_price(&half.read().json(), "BTC");
    is_price(&half.read().json(), "BTC");
    assert!(half.closes());
    let mut mute = target.http();
    mute.shut_write();
    assert!(mute.closes());
}

pub(crate) fn pipelines(target: &Target<'_>) {
    let assets = target.http().get("/assets", &target.token).json();
    let names: Vec<_> =
        assets["assets"].as_array().unwrap().iter().map(|a| a["asset"].as_str().unwrap()).collect();
    let mut http = target.http();
    let asked: Vec<&str> =
        (0..100).map(|n| if n % 10 == 9 { "NOPE" } else { names[n % names.len()] }).collect();
    let all: String =
        asked.iter().map(|asset| get(&format!("/price?asset={asset}"), &target.token)).collect();
    http.write(all.as_bytes());
    for asset in asked {
        let response = http.read();
        match response.status {
            // The error names no asset, so its place in the order is the proof.
            404 => assert_eq!(asset, "NOPE"),
            503 => assert_eq!(response.json()["error"], "stale"),
            _ => assert_eq!(response.json()["asset"], asset),
        }
    }
}

pub(crate) fn reads_in_pieces_and_skips_bodies(target: &Target<'_>) {
    let mut http = target.http();
    let request = get("/price?asset=BTC", &target.token);
    for piece in request.as_bytes().chunks(7) {
        http.write(piece);
        std::thread::sleep(Duration::from_millis(1));
    }
    is_price(&http.read().json(), "BTC");
    // Empty lines before a request are tolerated.
    http.write(format!("\r\n\r\n{request}").as_bytes());
    is_price(&http.read().json(), "BTC");

    for body_len in [1, 100, 65_536] {
        let head = format!("POST /price HTTP/1.1\r\nHost: x\r\nContent-Length: {body_len}\r\n\r\n");
        let body = "GET /assets HTTP/1.1\r\n\r\n".repeat(body_len / 24 + 1);
        http.write(format!("{head}{}{request}", &body[..body_len]).as_bytes());
        assert_eq!(http.read().status, 405);
        is_price(&http.read().json(), "BTC");
    }
    // In pieces, too, with the next request behind it.
    http.write(b"GET /exchanges HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n0123456789");
    assert_eq!(http.read().status, 200);
    http.write(&[b'x'; 39]);
    std::thread::sleep(Duration::from_millis(5));
    http.write(format!("x{request}").as_bytes());
    is_price(&http.read().json(), "BTC");
    http.write(b"POST /price HTTP/1.1\r\nHost: x\r\nContent-Length: 65537\r\n\r\n");
    assert_eq!(http.read().status, 413);
    assert!(http.closes());
}

/// Many long answers to a client that reads late: nothing is lost, nothing out of order.
pub(crate) fn waits_for_slow_readers(target: &Target<'_>) {
    const COUNT: usize = 300;
    let mut http = target.http();
    let mut writer = http.stream.try_clone().unwrap();
    let (long, short) = (get("/assets", &target.token), get("/exchanges", &target.token));
    let thread = std::thread::spawn(move || {
        for n in 0..COUNT {
            writer.write_all(if n % 3 == 2 { &short } else { &long }.as_bytes()).unwrap();
        }
    });
    std::thread::sleep(Duration::from_millis(200));
    for n in 0..COUNT {
        let response = http.read();
        let member = if n % 3 == 2 { "exchanges" } else { "assets" };
        assert!(response.body.starts_with(format!("{{\"{member}\":[").as_bytes()), "answer {n}");
    }
    thread.join().unwrap();
}
