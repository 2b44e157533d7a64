/* Answers as a bridge does, without being one: what a client costs beside a bridge that costs next
   to nothing.

     answerer FILE

   `initialize` is answered with the MessagePack value in FILE, and every other request with its own
   parameters, which for `ping` holds its result. Notifications are not answered. It takes requests
   as the client writes them: the array of 4, 0, an id in any form, a method of up to 31 bytes. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PIPE_BYTES = 1 << 20, ROOM = 1 << 20, MAX_HELLO = 1 << 15 };

static unsigned char in[ROOM], out[2 * ROOM], hello[MAX_HELLO];
static size_t hello_bytes;

static size_t number(const unsigned char *at) {
  return (size_t)at[0] << 24 | (size_t)at[1] << 16 | (size_t)at[2] << 8 | at[3];
}

static size_t id_bytes(unsigned char head) {
  return head == 0xcc ? 2 : head == 0xcd ? 3 : head == 0xce ? 5 : head == 0xcf ? 9 : 1;
}

/* Writes the answer to a payload behind its length; how many bytes that is. */
static size_t answer(const unsigned char *payload, size_t bytes, unsigned char *to) {
  if (bytes < 5 || payload[0] != 0x94 || payload[1] != 0) return 0;
  size_t id = id_bytes(payload[2]), method = 2 + id;
  size_t params = method + 1 + (payload[method] & 31), size = bytes - params;
  const unsigned char *result = payload + params;
  if (params - method == 11 && memcmp(payload + method + 1, "initialize", 10) == 0) {
    result = hello;
    size = hello_bytes;
  }
  size_t all = 2 + id + 1 + size;
  to[0] = (unsigned char)(all >> 24);
  to[1] = (unsigned char)(all >> 16);
  to[2] = (unsigned char)(all >> 8);
  to[3] = (unsigned char)all;
  to[4] = 0x94;
  to[5] = 1;
  memcpy(to + 6, payload + 2, id);
  to[6 + id] = 0xc0;
  memcpy(to + 7 + id, result, size);
  return 4 + all;
}

int main(int argc, char **argv) {
  FILE *file = argc == 2 ? fopen(argv[1], "rb") : NULL;
  if (!file) {
    fprintf(stderr, "usage: answerer FILE\n");
    return 2;
  }
  hello_bytes = fread(hello, 1, MAX_HELLO, file);
  fclose(file);
  fcntl(0, F_SETPIPE_SZ, PIPE_BYTES);
  fcntl(1, F_SETPIPE_SZ, PIPE_BYTES);
  size_t have = 0;
  for (;;) {
    ssize_t got = read(0, in + have, ROOM - have);
    if (got <= 0) return got < 0;
    have += (size_t)got;
    size_t at = 0, filled = 0;
    while (have - at >= 4 && number(in + at) <= have - at - 4) {
      size_t bytes = number(in + at);
      filled += answer(in + at + 4, bytes, out + filled);
      at += 4 + bytes;
      if (filled > ROOM - MAX_HELLO) break;
    }
    for (size_t done = 0; done < filled;) {
      ssize_t written = write(1, out + done, filled - done);
      if (written < 0) return errno != EPIPE;
      done += (size_t)written;
    }
    memmove(in, in + at, have - at);
    have -= at;
    if (have == ROOM) return 1; /* a request that nobody here sends */
  }
}
