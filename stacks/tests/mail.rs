//! Mail under input that nobody chose: header fields stay fields, and bodies cut anywhere stay the same. Each test prints
//! its seed; `MOONWIRE_SEED` sets it.

use std::{env, time::SystemTime};

use moonwire::mail::{
    dkim::{BodyHash, relaxed_field},
    header,
    transfer::{Place, Scan, lines},
};

/// xorshift64*, from a seed that is told.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock after 1970");
        let seed = match env::var("MOONWIRE_SEED") {
            Ok(text) => text.parse().expect("MOONWIRE_SEED is a number"),
            Err(_) => u64::from(now.subsec_nanos()) + 1,
        };
        println!("MOONWIRE_SEED={seed}");
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
    }

    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    /// Text of letters that are special somewhere, and of some that are not.
    fn text(&mut self, most: usize) -> String {
        let letters: Vec<char> = "ab  \t\"\\,;:<>()@=?_.-'%*ßü水🔥é\u{301}\u{200f}".chars().collect();
        (0..self.below(most + 1)).map(|_| self.pick(&letters)).collect()
    }
}

/// What every field is: lines of text that go on with a space, the first after its name, none of them blank.
fn assert_field(name: &str, field: &[u8], ascii: bool) {
    let text = str::from_utf8(field).expect("UTF-8");
    assert!(text.starts_with(&format!("{name}:")) && text.ends_with("\r\n"), "{text:?}");
    assert!(!ascii || text.is_ascii(), "{text:?}");
    for (index, line) in text.strip_suffix("\r\n").expect("its end").split("\r\n").enumerate() {
        assert!(!line.contains(['\r', '\n', '\0']), "{text:?}");
        assert!(index == 0 || line.starts_with([' ', '\t']), "{text:?}");
        assert!(index == 0 || !line.trim_matches([' ', '\t']).is_empty(), "{text:?}");
    }
}

#[test]
fn whatever_is_in_a_value_a_field_stays_one_field() {
    let mut random = Random::new();
    for _ in 0..20_000 {
        let utf8 = random.below(2) == 0;
        let text = random.text(150);
        assert_field("Subject", &header::text("Subject", &text, utf8), !utf8);
        let list: Vec<(Option<String>, String)> = (0..1 + random.below(4))
            .map(|_| {
                let display = random.text(60);
                ((random.below(3) > 0).then_some(display), "jo@example.org".to_owned())
            })
            .collect();
        assert_field("To", &header::addresses("To", &list, utf8), !utf8);
        let parameters = [("filename".to_owned(), random.text(120))];
        let field = header::parameters("Content-Disposition", "attachment", &parameters, utf8);
        assert_field("Content-Disposition", &field, !utf8);
    }
}

#[test]
fn a_text_in_any_pieces_is_the_same_lines_size_and_hash() {
    let mut random = Random::new();
    let bytes = b"ab.. \t\r\n\r\n\n\r\xfc";
    for _ in 0..5_000 {
        let text: Vec<u8> = (0..random.below(80)).map(|_| random.pick(bytes)).collect();
        let (mut whole, mut stuffed) = (Vec::new(), Vec::new());
        let end = lines(&mut whole, &text, Place::default(), false);
        lines(&mut stuffed, &text, Place::default(), true);
        let (mut out, mut dots, mut scan, mut hash) = (Vec::new(), Vec::new(), Scan::default(), BodyHash::default());
        let (mut place, mut dot_place, mut rest) = (Place::default(), Place::default(), text.as_slice());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(1 + random.below(rest.len()));
            let from = out.len();
            place = lines(&mut out, piece, place, false);
            dot_place = lines(&mut dots, piece, dot_place, true);
            scan.update(piece);
            hash.update(&out[from..]);
            rest = after;
        }
        scan.finish();
        assert_eq!((&out, &dots), (&whole, &stuffed), "{text:?}");
        let missing = if end == Place::Line { 2 } else { 0 };
        assert_eq!(scan.size, (whole.len() + missing) as u64, "{text:?}");
        assert_eq!(scan.eight_bit, text.contains(&0xfc));
        // No line of a message that goes out is a dot alone, and every end is CRLF.
        assert!(!stuffed.split(|&byte| byte == b'\n').any(|line| line == b".\r"), "{text:?}");
        assert!(!whole.windows(2).any(|pair| (pair[0] == b'\r') != (pair[1] == b'\n')), "{text:?}");
        let mut at_once = BodyHash::default();
        at_once.update(&whole);
        assert_eq!(hash.finish(), at_once.finish(), "{text:?}");
    }
}

#[test]
fn a_canonical_field_has_no_line_end_and_is_its_own_canonical_form() {
    let mut random = Random::new();
    for _ in 0..20_000 {
        let field = header::text("X-Field", &random.text(200), random.below(2) == 0);
        let once = relaxed_field(&field).expect("a colon");
        assert!(!once.contains(&b'\r') && !once.contains(&b'\n'));
        assert_eq!(relaxed_field(&once), Some(once));
    }
}
