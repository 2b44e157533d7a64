/* The floor: echoes frames, which is the least that a server behind a pipe can do.

   A frame is a length of 4 bytes, big-endian, and as many bytes. Every complete frame of a read goes
   back in one write; a frame is written back when all of it has come, as whoever has to understand
   it must wait for it, too. It does not look into a frame. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PIPE_BYTES = 1 << 20, SMALL_READ = 1 << 16 };

static size_t frame_at(const unsigned char *at) {
  return 4 + ((size_t)at[0] << 24 | (size_t)at[1] << 16 | (size_t)at[2] << 8 | at[3]);
}

static void write_all(const unsigned char *at, size_t size) {
  while (size) {
    ssize_t written = write(1, at, size);
    if (written < 0) exit(errno == EPIPE ? 0 : 1);
    at += written;
    size -= (size_t)written;
  }
}

int main(void) {
  size_t room = SMALL_READ, have = 0;
  unsigned char *buffer = malloc(room);
  if (!buffer) return 1;
  fcntl(0, F_SETPIPE_SZ, PIPE_BYTES);
  fcntl(1, F_SETPIPE_SZ, PIPE_BYTES);
  for (;;) {
    ssize_t got = read(0, buffer + have, room - have);
    if (got <= 0) return got < 0;
    have += (size_t)got;
    size_t whole = 0;
    while (have - whole >= 4 && frame_at(buffer + whole) <= have - whole)
      whole += frame_at(buffer + whole);
    write_all(buffer, whole);
    memmove(buffer, buffer + whole, have - whole);
    have -= whole;
    if (have >= 4 && frame_at(buffer) > room) {
      room = frame_at(buffer);
      buffer = realloc(buffer, room);
      if (!buffer) return 1;
    }
  }
}
