//! Embeds the `lua/` tree: every Lua file is a module, but annotations (`meta/`) and tests (`*_test.lua`). What is sent to
//! browsers (`.js`, `.ts`) is embedded as text.

use std::{env, fmt::Write, fs, io, path::Path};

fn main() -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lua");
    println!("cargo:rerun-if-changed={}", root.display());
    lay_out();
    let mut tree = Tree::default();
    tree.walk(&root, "")?;
    let out = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    let out = Path::new(&out);
    fs::write(out.join("embedded.txt"), tree.bytes)?;
    fs::write(out.join("embedded.rs"), format!("&[\n{}]", tree.modules))?;
    fs::write(out.join("texts.rs"), format!("&[\n{}]", tree.texts))
}

/// Has the linker put functions together that programs use: `layout.ld` says why. ld and lld read such a script, mold does
/// not; `MOONWIRE_LAYOUT=off` is for others that do not.
fn lay_out() {
    println!("cargo:rerun-if-changed=layout.ld");
    println!("cargo:rerun-if-env-changed=MOONWIRE_LAYOUT");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|is| is == value);
    let mold = env::var("CARGO_ENCODED_RUSTFLAGS").is_ok_and(|flags| flags.contains("mold"));
    let wanted = is("CARGO_CFG_TARGET_OS", "linux") && is("PROFILE", "release");
    if wanted && !mold && !is("MOONWIRE_LAYOUT", "off") {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("layout.ld");
        println!("cargo:rustc-link-arg-bins=-Wl,-T,{}", script.display());
    }
}

/// What was found, as Rust: pairs of a name and a place in all the texts. These lie together, so that a program that uses
/// few of them has few of their pages in memory.
#[derive(Default)]
struct Tree {
    bytes: String,
    modules: String,
    texts: String,
}

impl Tree {
    fn walk(&mut self, folder: &Path, prefix: &str) -> io::Result<()> {
        let mut entries: Vec<_> = fs::read_dir(folder)?.collect::<io::Result<_>>()?;
        entries.sort_by_key(|entry| entry.file_name());
        for entry in entries {
            let path = entry.path().canonicalize()?;
            let name = entry.file_name().into_string().expect("file names in lua/ are UTF-8");
            if path.is_dir() {
                if !prefix.is_empty() || name != "meta" {
                    self.walk(&path, &format!("{prefix}{name}."))?;
                }
            } else if let Some(stem) = name.strip_suffix(".lua").filter(|stem| !stem.ends_with("_test")) {
                let module =
                    if stem == "init" { prefix.trim_end_matches('.').to_owned() } else { format!("{prefix}{stem}") };
                let line = self.embed(&path, &module)?;
                self.modules.push_str(&line);
            } else if name.ends_with(".js") || name.ends_with(".ts") {
                let line = self.embed(&path, &format!("{}{name}", prefix.replace('.', "/")))?;
                self.texts.push_str(&line);
            }
        }
        Ok(())
    }

    /// Takes a file in, and answers the line of a table that names it.
    fn embed(&mut self, path: &Path, name: &str) -> io::Result<String> {
        println!("cargo:rerun-if-changed={}", path.display());
        let text = fs::read_to_string(path)?;
        let mut line = String::new();
        writeln!(line, "    ({name:?}, EMBEDDED.split_at({}).1.split_at({}).0),", self.bytes.len(), text.len())
            .expect("a String takes everything");
        self.bytes.push_str(&text);
        Ok(line)
    }
}
