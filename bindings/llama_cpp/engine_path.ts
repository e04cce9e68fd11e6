/**
 * Where libllama is.
 *
 * @module
 */
import { tryEnvironment } from "../../ffi/library_path.ts";
import { ChunkKvError } from "../../ffi/status.ts";

/** Name of an environment variable that holds the path of libllama. */
export const ENGINE_VARIABLE = "CHUNKKV_LLAMA_LIBRARY";

/** The version of the npm packages with a prebuilt libllama of the release that is supported. */
export const PREBUILT_VERSION = "3.22.1";

const PLATFORMS: Readonly<Record<string, string>> = {
  "linux-x86_64": "linux-x64",
  "linux-aarch64": "linux-arm64",
  "darwin-aarch64": "mac-arm64-metal",
  "darwin-x86_64": "mac-x64",
  "windows-x86_64": "win-x64",
  "windows-aarch64": "win-arm64",
};

/**
 * Finds libllama: the path given, else that in `CHUNKKV_LLAMA_LIBRARY`, else the prebuilt one of the
 * npm package for this platform, which Deno fetches unless it has it.
 *
 * @param given A path of the library, if there is one.
 * @returns The library's path.
 * @throws {ChunkKvError} `library_not_found`: with what was expected where.
 */
export async function enginePath(given?: string): Promise<string> {
  const explicit = given ?? tryEnvironment(ENGINE_VARIABLE);
  if (explicit === undefined) return findLibrary(await prebuiltFolder());
  let info;
  try {
    info = Deno.statSync(explicit);
  } catch (cause) {
    if (cause instanceof Deno.errors.NotCapable) return explicit;
    throw new ChunkKvError(
      "library_not_found",
      `Expected libllama at ${explicit} but found no such file`,
      { cause },
    );
  }
  return info.isDirectory ? findLibrary(explicit) : explicit;
}

async function prebuiltFolder(): Promise<string> {
  const platform = PLATFORMS[`${Deno.build.os}-${Deno.build.arch}`];
  const remedy = `set ${ENGINE_VARIABLE} to the path of your own`;
  if (!platform) {
    throw new ChunkKvError(
      "library_not_found",
      `Expected a platform with a prebuilt libllama but found ${Deno.build.os} on ` +
        `${Deno.build.arch}: ${remedy}`,
    );
  }
  const specifier = `npm:@node-llama-cpp/${platform}@${PREBUILT_VERSION}`;
  try {
    const { getBinsDir } = await import(specifier);
    return `${getBinsDir().binsDir}/${platform}`;
  } catch (cause) {
    throw new ChunkKvError(
      "library_not_found",
      `Expected libllama from ${specifier} but found: ` +
        `${cause instanceof Error ? cause.message : cause}; ${remedy}`,
      { cause },
    );
  }
}

/** The file that is libllama, whatever version it has in its name. */
function findLibrary(folder: string): string {
  try {
    for (const { name } of Deno.readDirSync(folder)) {
      if (/^(lib)?llama(\.v?[\d.]+)?\.(so|dylib|dll)(\.[\d.]+)?$/.test(name)) {
        return `${folder}/${name}`;
      }
    }
  } catch (cause) {
    throw new ChunkKvError(
      "library_not_found",
      `Expected libllama in ${folder} but could not look: ` +
        `${cause instanceof Error ? cause.message : cause}`,
      { cause },
    );
  }
  throw new ChunkKvError(
    "library_not_found",
    `Expected libllama in ${folder} but found no library of that name`,
  );
}
