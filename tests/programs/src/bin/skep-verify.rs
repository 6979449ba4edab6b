//! Prints what this kernel's verifier makes of each program: `skep-verify [OBJECT...]`. Fails when one is refused.

use std::path::PathBuf;

use anyhow::ensure;
use skep_datapath::verify::verify;
use skep_test_programs::bench::BpfFs;

fn main() -> anyhow::Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
    let folder = std::env::var_os("SKEP_BPF_DIR").map(PathBuf::from);
    let pins = BpfFs::mount()?;
    let facts = verify(folder.as_deref(), pins.path(), &wanted)?;
    let mut refused = 0;
    for fact in &facts {
        println!(
            "{:8} {:18} translated {:6} jited {:6} verified {:7} {:?}",
            fact.object, fact.program, fact.translated, fact.jited, fact.verified, fact.duration
        );
        if let Some(why) = &fact.refused {
            refused += 1;
            println!("REFUSED: {}", why.replace("\\n", "\n"));
        }
    }
    ensure!(refused == 0, "{refused} programs refused");
    Ok(())
}
