//! Embeds the `lua/` tree: every Lua file is a module, but annotations (`meta/`) and tests (`*_test.lua`). What is sent to
//! browsers (`.js`, `.ts`) is embedded as text.

use std::{env, fmt::Write, fs, io, path::Path};

fn main() -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lua");
    println!("cargo:rerun-if-changed={}", root.display());
    let (mut modules, mut texts) = (String::from("&[\n"), String::from("&[\n"));
    walk(&root, "", &mut modules, &mut texts)?;
    modules.push(']');
    texts.push(']');
    let out = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    fs::write(Path::new(&out).join("embedded.rs"), modules)?;
    fs::write(Path::new(&out).join("texts.rs"), texts)
}

fn walk(folder: &Path, prefix: &str, modules: &mut String, texts: &mut String) -> io::Result<()> {
    let mut entries: Vec<_> = fs::read_dir(folder)?.collect::<io::Result<_>>()?;
    entries.sort_by_key(|entry| entry.file_name());
    for entry in entries {
        let path = entry.path().canonicalize()?;
        let name = entry.file_name().into_string().expect("file names in lua/ are UTF-8");
        if path.is_dir() {
            if !prefix.is_empty() || name != "meta" {
                walk(&path, &format!("{prefix}{name}."), modules, texts)?;
            }
        } else if let Some(stem) = name.strip_suffix(".lua").filter(|stem| !stem.ends_with("_test")) {
            let module =
                if stem == "init" { prefix.trim_end_matches('.').to_owned() } else { format!("{prefix}{stem}") };
            println!("cargo:rerun-if-changed={}", path.display());
            writeln!(modules, "    ({module:?}, include_str!({path:?})),").expect("a String takes everything");
        } else if name.ends_with(".js") || name.ends_with(".ts") {
            let text = format!("{}{name}", prefix.replace('.', "/"));
            println!("cargo:rerun-if-changed={}", path.display());
            writeln!(texts, "    ({text:?}, include_str!({path:?})),").expect("a String takes everything");
        }
    }
    Ok(())
}
