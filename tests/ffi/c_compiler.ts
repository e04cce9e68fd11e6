/**
 * The C compiler that tests ask about layouts, and that makes libraries that are wrong on purpose.
 *
 * @module
 */

const ROOT = decodeURIComponent(new URL("../../", import.meta.url).pathname);

/** Compilers to try: the caller's, the project's own, the system's. */
function candidates(): string[][] {
  const own = Deno.env.get("CC");
  const python = `${ROOT}.venv/${
    Deno.build.os === "windows" ? "Scripts/python.exe" : "bin/python"
  }`;
  return [
    ...(own ? [own.split(" ")] : []),
    [python, "-m", "ziglang", "cc"],
    ["cc"],
    ["gcc"],
    ["clang"],
    ["zig", "cc"],
  ];
}

function works([program = "", ...args]: string[]): boolean {
  try {
    return new Deno.Command(program, {
      args: [...args, "--version"],
      stdout: "null",
      stderr: "null",
    })
      .outputSync().success;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/**
 * Compiles a C11 source against the project's header.
 *
 * @param source Its text.
 * @param output The file to make.
 * @param flags More flags, such as `-shared`.
 */
export function compileC(source: string, output: string, flags: string[] = []): void {
  const compiler = candidates().find(works);
  if (!compiler) {
    throw new Error(
      `Expected a C compiler among ${candidates().map((one) => one.join(" ")).join(", ")} but ` +
        `found none`,
    );
  }
  const [program = "", ...args] = compiler;
  Deno.writeTextFileSync(`${output}.c`, source);
  const include = `-I${ROOT}csrc/include`;
  const { success, stderr } = new Deno.Command(program, {
    args: [...args, "-std=c11", include, ...flags, `${output}.c`, "-o", output],
    stdout: "null",
    stderr: "piped",
  }).outputSync();
  if (!success) {
    throw new Error(`Expected ${output}.c to compile but found:
${new TextDecoder().decode(stderr)}`);
  }
}
