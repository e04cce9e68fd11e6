#include "library.h"

#include <stdio.h>
#include <string.h>

#if defined(_WIN32)

#  include <windows.h>

void *ckvl_library_open(const char *path, char *error, size_t error_bytes) {
  // The altered search path finds ggml's libraries next to llama's.
  const HMODULE library = LoadLibraryExA(path, NULL, LOAD_WITH_ALTERED_SEARCH_PATH);
  if (!library) snprintf(error, error_bytes, "LoadLibrary error %lu", GetLastError());
  return (void *)library;
}

void *ckvl_library_symbol(void *library, const char *name) {
  static const char *const dependencies[] = {"ggml-base.dll", "ggml.dll"};
  FARPROC symbol = GetProcAddress((HMODULE)library, name);
  for (size_t i = 0; !symbol && i < sizeof dependencies / sizeof *dependencies; i++) {
    const HMODULE dependency = GetModuleHandleA(dependencies[i]);
    if (dependency) symbol = GetProcAddress(dependency, name);
  }
  void *pointer;
  memcpy(&pointer, &symbol, sizeof pointer);
  return pointer;
}

#else

#  include <dlfcn.h>

void *ckvl_library_open(const char *path, char *error, size_t error_bytes) {
  void *const library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    const char *const reason = dlerror();
    snprintf(error, error_bytes, "%s", reason ? reason : "no reason given");
  }
  return library;
}

void *ckvl_library_symbol(void *library, const char *name) { return dlsym(library, name); }

#endif
