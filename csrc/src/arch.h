// Which architectures the compiler can write kernels for.
#ifndef CKV_ARCH_H
#define CKV_ARCH_H

#if defined(__GNUC__) && defined(__x86_64__)
#  define CKV_X86_64 1
#else
#  define CKV_X86_64 0
#endif

#if defined(__GNUC__) && defined(__aarch64__) && !defined(__AARCH64EB__)
#  define CKV_ARM64 1
#else
#  define CKV_ARM64 0
#endif

#endif
