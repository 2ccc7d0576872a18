//! Answers over HTTP/1.1, appended to a vector whose capacity is reused: nothing is formatted and
//! nothing is allocated once the vector has grown.
//!
//! ```text
//! HTTP/1.1 200 OK␍␊content-type: …␍␊cache-control: …␍␊  one constant
//! [access-control-…␍␊] [connection: …␍␊]                where asked for
//! content-length: 93␍␊␍␊                                digits
//! {"asset":…}                                            the body, left out for HEAD
//! ```

/// What becomes of the connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// It stays open, as HTTP/1.1 assumes.
    KeepAlive,
    /// It stays open and the answer says so, because the peer speaks HTTP/1.0.
    KeepAliveAnnounced,
    /// It is closed, and the answer says so.
    Close,
}

/// How an answer is framed. [`Request::reply`](super::head::Request::reply) makes it from a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// What becomes of the connection.
    pub connection: Connection,
    /// To a HEAD request: all headers, no body.
    pub without_body: bool,
    /// To a browser's script: with the headers that let it read the answer.
    pub cors: bool,
}

impl Reply {
    /// To a request that could not be parsed.
    pub const CLOSE: Self = Self { connection: Connection::Close, without_body: false, cors: false };

    /// The same, but the connection is closed after it.
    #[must_use]
    pub fn closing(self) -> Self {
        Self { connection: Connection::Close, ..self }
    }
}

macro_rules! statuses {
    ($($(#[doc = $doc:literal])+ $variant:ident = $code:literal $reason:literal;)+) => {
        /// Status of an answer.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Status { $($(#[doc = $doc])+ $variant = $code,)+ }

        impl Status {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The number.
            #[must_use]
            pub fn code(self) -> u16 {
                self as u16
            }

            /// Status line and the headers that every answer with a body has.
            fn head(self) -> &'static [u8] {
                match self { $(Self::$variant => concat!(
                    "HTTP/1.1 ", stringify!($code), " ", $reason,
                    "\r\ncontent-type: application/json\r\ncache-control: no-store\r\n"
                ).as_bytes(),)+ }
            }
        }
    };
}

statuses! {
    /// What was asked for.
    Ok = 200 "OK";
    /// Not a request, or with parameters that make no sense.
    BadRequest = 400 "Bad Request";
    /// No valid key.
    Unauthorized = 401 "Unauthorized";
    /// No such path or asset.
    NotFound = 404 "Not Found";
    /// The path has no such method.
    MethodNotAllowed = 405 "Method Not Allowed";
    /// A chunked body.
    LengthRequired = 411 "Length Required";
    /// A body too long to be skipped.
    ContentTooLarge = 413 "Content Too Large";
    /// A target too long.
    UriTooLong = 414 "URI Too Long";
    /// An expectation that is not met.
    ExpectationFailed = 417 "Expectation Failed";
    /// Over a limit of the key.
    TooManyRequests = 429 "Too Many Requests";
    /// A head too long or with too many headers.
    HeadTooLarge = 431 "Request Header Fields Too Large";
    /// Something of ours is broken.
    InternalServerError = 500 "Internal Server Error";
    /// No fresh price, or no room for the request.
    ServiceUnavailable = 503 "Service Unavailable";
}

/// Where a key stands with its limits: the headers `ratelimit-policy` and `ratelimit`, in the form of
/// draft-ietf-httpapi-ratelimit-headers-10.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests allowed in the window.
    pub quota: u64,
    /// The window, in seconds.
    pub window_s: u64,
    /// Requests left in it.
    pub remaining: u64,
    /// Seconds until it is full again.
    pub reset_s: u64,
    /// The calendar month, where it is capped.
    pub month: Option<MonthLimit>,
}

/// Where a key stands with its month.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MonthLimit {
    /// Requests allowed in a month.
    pub quota: u64,
    /// Requests left in this one.
    pub remaining: u64,
    /// Seconds until it ends.
    pub reset_s: u64,
}

/// Headers that only some refusals have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extra<'a> {
    /// `retry-after`, in seconds.
    pub retry_after_s: Option<u64>,
    /// `ratelimit-policy` and `ratelimit`.
    pub rate_limit: Option<RateLimit>,
    /// `allow`, on 405: the methods of the path, separated by commas.
    pub allow: Option<&'a str>,
}

/// Appends a 200 with this body.
#[inline]
pub fn ok(out: &mut Vec<u8>, reply: Reply, rate_limit: Option<&RateLimit>, body: &[u8]) {
    ok_head(out, reply, rate_limit, body.len());
    if !reply.without_body {
        out.extend_from_slice(body);
    }
}

/// Appends the head of a 200 whose body of exactly `body_len` bytes the caller appends next, unless
/// [`Reply::without_body`].
#[inline]
pub fn ok_head(out: &mut Vec<u8>, reply: Reply, rate_limit: Option<&RateLimit>, body_len: usize) {
    out.reserve(HEAD_LEN_MAX + body_len);
    out.extend_from_slice(Status::Ok.head());
    framing(out, reply);
    match rate_limit {
        None => Piece::<LENGTH_LEN_MAX>::new().length(out, body_len),
        Some(rate_limit) => {
            let mut piece = Piece::<PIECE_LEN_MAX>::new();
            piece.rate_limit(rate_limit);
            piece.length(out, body_len);
        }
    }
}

/// Appends the head of an answer whose body's length is not yet known; the caller appends the body
/// and then calls [`OpenBody::finish`].
#[must_use = "the content-length is missing until finish is called"]
pub fn open(out: &mut Vec<u8>, reply: Reply, status: Status, extra: Extra<'_>) -> OpenBody {
    out.reserve(HEAD_LEN_MAX);
    out.extend_from_slice(status.head());
    framing(out, reply);
    extras(out, extra).append(out);
    // Spaces before a header's value mean nothing, so the number can be filled in from the right.
    out.extend_from_slice(b"content-length:              \r\n\r\n");
    OpenBody { start: out.len(), without_body: reply.without_body }
}

/// A body that is being appended.
#[derive(Debug)]
pub struct OpenBody {
    start: usize,
    without_body: bool,
}

impl OpenBody {
    /// Writes the length of what has been appended since [`open`] into the head.
    pub fn finish(self, out: &mut Vec<u8>) {
        let mut rest = out.len().saturating_sub(self.start);
        let digits_end = self.start.saturating_sub(4);
        for place in out.get_mut(digits_end.saturating_sub(13)..digits_end).into_iter().flatten().rev() {
            *place = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if self.without_body {
            out.truncate(self.start);
        }
    }
}

/// Appends a refusal: `{"error":"…","message":"…"}`. Neither text may need escaping in JSON beyond
/// quotes and backslashes, which are escaped; control bytes become spaces.
pub fn error(out: &mut Vec<u8>, reply: Reply, status: Status, error: &str, message: &str, extra: Extra<'_>) {
    let body = open(out, reply, status, extra);
    out.extend_from_slice(b"{\"error\":\"");
    escaped(out, error);
    out.extend_from_slice(b"\",\"message\":\"");
    escaped(out, message);
    out.extend_from_slice(b"\"}");
    body.finish(out);
}

/// Appends a refusal whose body is ready.
pub fn refusal(out: &mut Vec<u8>, reply: Reply, status: Status, body: &[u8], extra: Extra<'_>) {
    out.reserve(HEAD_LEN_MAX + body.len());
    out.extend_from_slice(status.head());
    framing(out, reply);
    extras(out, extra).length(out, body.len());
    if !reply.without_body {
        out.extend_from_slice(body);
    }
}

/// Appends the answer to a head that was refused; the connection is to be closed.
pub fn reject(out: &mut Vec<u8>, reject: super::head::Reject) {
    error(out, Reply::CLOSE, reject.status(), reject.error(), reject.message(), Extra::default());
}

/// Appends the answer to an OPTIONS request: 204, what a browser may ask for, for a day.
pub fn preflight(out: &mut Vec<u8>, reply: Reply) {
    out.extend_from_slice(
        b"HTTP/1.1 204 No Content\r\n\
        allow: GET, HEAD, OPTIONS\r\n\
        access-control-allow-origin: *\r\n\
        access-control-allow-methods: GET, HEAD, OPTIONS\r\n\
        access-control-allow-headers: authorization, x-api-key, x-request-id\r\n\
        access-control-max-age: 86400\r\n",
    );
    framing(out, Reply { cors: false, ..reply });
    out.extend_from_slice(b"\r\n");
}

/// Room for the longest head: status line and constant headers (120), CORS (110), connection (25),
/// retry-after (35), what is constant of the rate-limit headers (90) and their seven numbers of 20
/// digits each (140), allow and length (80).
const HEAD_LEN_MAX: usize = 600;

#[inline]
fn framing(out: &mut Vec<u8>, reply: Reply) {
    if reply.cors {
        out.extend_from_slice(
            b"access-control-allow-origin: *\r\n\
            access-control-expose-headers: retry-after, ratelimit, ratelimit-policy\r\n",
        );
    }
    match reply.connection {
        Connection::KeepAlive => {}
        Connection::KeepAliveAnnounced => out.extend_from_slice(b"connection: keep-alive\r\n"),
        Connection::Close => out.extend_from_slice(b"connection: close\r\n"),
    }
}

/// Appends what is text alone, and begins the piece of what has numbers.
#[inline]
fn extras(out: &mut Vec<u8>, extra: Extra<'_>) -> Piece<PIECE_LEN_MAX> {
    if let Some(methods) = extra.allow {
        out.extend_from_slice(b"allow: ");
        out.extend_from_slice(methods.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    let mut piece = Piece::new();
    if let Some(seconds) = extra.retry_after_s {
        piece.put(b"retry-after: ", seconds);
        piece.text(b"\r\n");
    }
    if let Some(rate_limit) = &extra.rate_limit {
        piece.rate_limit(rate_limit);
    }
    piece
}

/// What is constant of the headers with numbers (135), and their nine numbers of 20 digits each.
const PIECE_LEN_MAX: usize = 320;

/// The last header alone, with what ends the head (20), and its number.
const LENGTH_LEN_MAX: usize = 40;

/// Headers with numbers, written one behind the other into a room of their own first: many short
/// pieces go into a vector one by one more slowly. What does not fit is left out.
struct Piece<const ROOM: usize> {
    room: [u8; ROOM],
    len: usize,
}

impl<const ROOM: usize> Piece<ROOM> {
    #[inline]
    fn new() -> Self {
        Self { room: [0; ROOM], len: 0 }
    }

    fn rate_limit(&mut self, rate: &RateLimit) {
        self.put(b"ratelimit-policy: \"rate\";q=", rate.quota);
        self.put(b";w=", rate.window_s);
        if let Some(month) = &rate.month {
            self.put(b", \"month\";q=", month.quota);
        }
        self.put(b"\r\nratelimit: \"rate\";r=", rate.remaining);
        self.put(b";t=", rate.reset_s);
        if let Some(month) = &rate.month {
            self.put(b", \"month\";r=", month.remaining);
            self.put(b";t=", month.reset_s);
        }
        self.text(b"\r\n");
    }

    /// Ends the head: appends all that was put, and the length of the body.
    #[inline]
    fn length(mut self, out: &mut Vec<u8>, body_len: usize) {
        self.put(b"content-length: ", body_len as u64);
        self.text(b"\r\n\r\n");
        self.append(out);
    }

    #[inline]
    fn append(self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.room.get(..self.len).unwrap_or_default());
    }

    #[inline]
    fn text(&mut self, text: &[u8]) {
        let Some(room) = self.room.get_mut(self.len..self.len + text.len()) else { return };
        room.copy_from_slice(text);
        self.len += text.len();
    }

    #[inline]
    fn put(&mut self, text: &[u8], value: u64) {
        let digits = value.checked_ilog10().unwrap_or(0) as usize + 1;
        let Some(room) = self.room.get_mut(self.len..self.len + text.len() + digits) else { return };
        let (head, number) = room.split_at_mut(text.len());
        head.copy_from_slice(text);
        let mut rest = value;
        // Two digits a division: it is the divisions that take the time.
        for places in number.rchunks_mut(2) {
            match places {
                [first] => *first = b'0' + (rest % 10) as u8,
                pair => pair.copy_from_slice(&PAIRS[(rest % 100) as usize]),
            }
            rest /= 100;
        }
        self.len += text.len() + digits;
    }
}

/// The digits of all numbers below a hundred.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[b'0'; 2]; 100];
    let mut n = 0;
    while n < 100 {
        pairs[n] = [b'0' + (n / 10) as u8, b'0' + (n % 10) as u8];
        n += 1;
    }
    pairs
};

fn escaped(out: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0..=0x1f => out.push(b' '),
            _ => out.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLY: Reply = Reply { connection: Connection::KeepAlive, without_body: false, cors: false };

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    /// What an independent parser makes of an answer: status, headers, body.
    fn parsed(text: &str) -> (u16, Vec<(String, String)>, &str) {
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut response = httparse::Response::new(&mut headers);
        let consumed = response.parse(text.as_bytes()).unwrap().unwrap();
        let value = |h: &httparse::Header<'_>| String::from_utf8(h.value.to_vec()).unwrap();
        let headers = response.headers.iter().map(|h| (h.name.to_owned(), value(h))).collect();
        (response.code.unwrap(), headers, &text[consumed..])
    }

    fn header(text: &str, name: &str) -> Option<String> {
        parsed(text).1.into_iter().find(|(n, _)| n == name).map(|(_, value)| value)
    }

    #[test]
    fn numbers_have_all_their_digits() {
        let powers = (0..20).map(|n| 10_u64.pow(n));
        for value in powers.flat_map(|n| [n - 1, n, n + 1, n.saturating_mul(7)]).chain([u64::MAX]) {
            let mut piece = Piece::<LENGTH_LEN_MAX>::new();
            piece.put(b"n=", value);
            assert_eq!(written(|out| piece.append(out)), format!("n={value}"));
        }
    }

    #[test]
    fn a_price_is_answered_in_exactly_these_bytes() {
        let text = written(|out| ok(out, REPLY, None, b"{\"a\":1}"));
        assert_eq!(
            text,
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncache-control: no-store\r\n\
            content-length: 7\r\n\r\n{\"a\":1}"
        );
    }

    #[test]
    fn an_answer_to_head_has_the_length_and_no_body() {
        let reply = Reply { without_body: true, ..REPLY };
        for text in [
            written(|out| ok(out, reply, None, &[b'x'; 1_234])),
            written(|out| {
                let body = open(out, reply, Status::Ok, Extra::default());
                out.extend_from_slice(&[b'x'; 1_234]);
                body.finish(out);
            }),
        ] {
            assert_eq!(header(&text, "content-length").as_deref(), Some("1234"));
            assert_eq!(parsed(&text).2, "");
        }
    }

    #[test]
    fn the_connection_header_appears_where_it_is_needed() {
        let connection = |connection| {
            header(&written(|out| ok(out, Reply { connection, ..REPLY }, None, b"")), "connection")
        };
        assert_eq!(connection(Connection::KeepAlive), None);
        assert_eq!(connection(Connection::KeepAliveAnnounced).as_deref(), Some("keep-alive"));
        assert_eq!(connection(Connection::Close).as_deref(), Some("close"));
        assert_eq!(REPLY.closing().connection, Connection::Close);
    }

    #[test]
    fn refusals_carry_their_headers_and_a_json_body() {
        let most = u64::MAX;
        let month = Some(MonthLimit { quota: most, remaining: most, reset_s: most });
        let rate_limit =
            Some(RateLimit { quota: most, window_s: most, remaining: most, reset_s: most, month });
        let extra = Extra { retry_after_s: Some(2), rate_limit, allow: Some("GET, HEAD") };
        let reply = Reply { cors: true, ..REPLY };
        let text =
            written(|out| error(out, reply, Status::TooManyRequests, "rate_limited", "a \"b\"\n\\", extra));
        let (code, _, body) = parsed(&text);
        assert_eq!(code, 429);
        let value: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(value, serde_json::json!({"error": "rate_limited", "message": "a \"b\" \\"}));
        for (name, value) in [
            ("content-length", body.len().to_string().as_str()),
            ("retry-after", "2"),
            (
                "ratelimit-policy",
                "\"rate\";q=18446744073709551615;w=18446744073709551615, \"month\";q=18446744073709551615",
            ),
            (
                "ratelimit",
                "\"rate\";r=18446744073709551615;t=18446744073709551615, \
                 \"month\";r=18446744073709551615;t=18446744073709551615",
            ),
            ("allow", "GET, HEAD"),
            ("access-control-allow-origin", "*"),
        ] {
            assert_eq!(header(&text, name).as_deref(), Some(value), "{name}");
        }
        assert!(text.len() - body.len() <= HEAD_LEN_MAX);
    }

    #[test]
    fn an_answer_may_say_where_its_key_stands() {
        let rate = RateLimit { quota: 200, window_s: 2, remaining: 150, reset_s: 1, month: None };
        let text = written(|out| ok(out, REPLY, Some(&rate), b"{}"));
        assert_eq!(header(&text, "ratelimit-policy").as_deref(), Some("\"rate\";q=200;w=2"));
        assert_eq!(header(&text, "ratelimit").as_deref(), Some("\"rate\";r=150;t=1"));
        assert_eq!(parsed(&text).2, "{}");
    }

    #[test]
    fn a_ready_refusal_is_written_as_any_other() {
        let extra = Extra { retry_after_s: Some(1), ..Extra::default() };
        let body = br#"{"error":"e","message":"m"}"#;
        let ready = written(|out| refusal(out, REPLY, Status::TooManyRequests, body, extra));
        let other = written(|out| error(out, REPLY, Status::TooManyRequests, "e", "m", extra));
        assert_eq!(parsed(&ready), {
            let (code, mut headers, body) = parsed(&other);
            headers.iter_mut().for_each(|(_, value)| *value = value.trim().to_owned());
            (code, headers, body)
        });
        let reply = Reply { without_body: true, ..REPLY };
        let head = written(|out| refusal(out, reply, Status::TooManyRequests, body, extra));
        assert_eq!((header(&head, "content-length").as_deref(), parsed(&head).2), (Some("27"), ""));
    }

    #[test]
    fn every_status_is_written_as_its_number() {
        for status in Status::ALL {
            let text = written(|out| error(out, REPLY, *status, "e", "m", Extra::default()));
            assert_eq!(parsed(&text).0, status.code());
            assert_eq!(parsed(&text).2, "{\"error\":\"e\",\"message\":\"m\"}");
        }
    }

    #[test]
    fn a_preflight_is_allowed_without_a_body() {
        let text = written(|out| preflight(out, Reply { cors: true, ..REPLY }));
        let (code, headers, body) = parsed(&text);
        assert_eq!((code, body), (204, ""));
        assert_eq!(headers.iter().filter(|(n, _)| n == "access-control-allow-origin").count(), 1);
        assert_eq!(header(&text, "content-length"), None);
        assert!(header(&text, "access-control-allow-headers").unwrap().contains("x-api-key"));
    }

    #[test]
    fn answers_follow_one_another_in_a_vector_that_does_not_grow() {
        let mut out = Vec::with_capacity(2_048);
        let capacity = out.capacity();
        for len in [0, 9, 10, 999] {
            out.clear();
            ok(&mut out, REPLY, None, &vec![b'x'; len]);
            let text = String::from_utf8(out.clone()).unwrap();
            assert_eq!(header(&text, "content-length"), Some(len.to_string()));
            assert_eq!(parsed(&text).2.len(), len);
        }
        assert_eq!(out.capacity(), capacity);
    }
}
