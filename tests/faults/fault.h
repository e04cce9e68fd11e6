// In front of every source of a library under test: its allocations, threads and engine functions
// come from here, where the k-th can be made to fail. Whatever else is in the process keeps its own.
#ifndef CKV_FAULT_H
#define CKV_FAULT_H

#if !defined(_GNU_SOURCE)
#  define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <locale.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

void *fault_malloc(size_t bytes);
void *fault_calloc(size_t count, size_t bytes);
void *fault_realloc(void *memory, size_t bytes);
void *fault_aligned_alloc(size_t alignment, size_t bytes);
void fault_free(void *memory);
int fault_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                         void *arg);
int fault_pthread_join(pthread_t thread, void **result);
FILE *fault_fopen(const char *path, const char *mode);
int fault_fclose(FILE *file);
locale_t fault_newlocale(int mask, const char *name, locale_t base);
void fault_freelocale(locale_t locale);
void *fault_dlsym(void *library, const char *name);

#if !defined(CKV_FAULT_KEEP)
#  define malloc fault_malloc
#  define calloc fault_calloc
#  define realloc fault_realloc
#  define aligned_alloc fault_aligned_alloc
#  define free fault_free
#  define pthread_create fault_pthread_create
#  define pthread_join fault_pthread_join
#  define fopen fault_fopen
#  define fclose fault_fclose
#  define newlocale fault_newlocale
#  define freelocale fault_freelocale
#  define dlsym fault_dlsym
#endif

#endif
