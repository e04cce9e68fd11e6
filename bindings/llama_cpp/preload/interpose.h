// How a function stands in for the engine's: on ELF systems by having its name, on macOS by a table
// that dyld reads from libraries in DYLD_INSERT_LIBRARIES.
#ifndef CKVP_INTERPOSE_H
#define CKVP_INTERPOSE_H

#if defined(__APPLE__)
#  define CKVP_FN(name) ckvp_##name
#  define CKVP_INTERPOSE(name)                                                 \
    __attribute__((used, section("__DATA,__interpose"))) static const struct { \
      __typeof__(&name) replacement, original;                                 \
    } interpose_##name = {ckvp_##name, name};
#else
#  define CKVP_FN(name) name
#endif

#endif
