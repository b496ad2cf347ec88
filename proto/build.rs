//! Generates `contract::pb` with protox: no system protoc is needed.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=switchyard");
    let files = ["switchyard/v1/table.proto", "switchyard/v1/config.proto", "switchyard/v1/usage.proto"];
    let set = protox::compile(files, ["."])?;
    tonic_prost_build::configure().bytes(".").btree_map(".").compile_fds(set)?;
    Ok(())
}
