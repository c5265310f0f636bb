/* RGB to a baseline JPEG in memory, by libjpeg-turbo's own interface. An error of the library jumps back into
 * the one function here, over C frames only, as in shim.c. */

#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

typedef struct {
  struct jpeg_error_mgr errors;
  jmp_buf escape;
} escaping;

static void on_fatal(j_common_ptr c) { longjmp(((escaping *)c->client_data)->escape, 1); }
static void on_message(j_common_ptr c, int level) { (void)c; (void)level; }

/* Compresses `width` x `height` pixels of 3 bytes. The result is `*out`, `*size` bytes, to be given to
 * `tldr_jpeg_free`, also after a failure. Returns 0, or 1 where it failed. */
int tldr_jpeg_compress(const uint8_t *pixels, uint32_t width, uint32_t height, int quality, uint8_t **out,
                       size_t *size) {
  struct jpeg_compress_struct c;
  escaping escape;
  unsigned long length = 0;
  memset(&c, 0, sizeof c);
  *out = NULL;
  *size = 0;
  c.err = jpeg_std_error(&escape.errors);
  escape.errors.error_exit = on_fatal;
  escape.errors.emit_message = on_message;
  c.client_data = &escape;
  if (setjmp(escape.escape)) {
    jpeg_destroy_compress(&c);
    return 1;
  }
  jpeg_create_compress(&c);
  c.client_data = &escape;
  jpeg_mem_dest(&c, out, &length);
  c.image_width = width;
  c.image_height = height;
  c.input_components = 3;
  c.in_color_space = JCS_RGB;
  jpeg_set_defaults(&c);
  jpeg_set_quality(&c, quality, TRUE);
  c.dct_method = JDCT_ISLOW;
  c.optimize_coding = TRUE;
  jpeg_start_compress(&c, TRUE);
  while (c.next_scanline < c.image_height) {
    JSAMPROW row = (JSAMPROW)(pixels + (size_t)c.next_scanline * width * 3);
    jpeg_write_scanlines(&c, &row, 1);
  }
  jpeg_finish_compress(&c);
  jpeg_destroy_compress(&c);
  *size = length;
  return 0;
}

void tldr_jpeg_free(uint8_t *out) { free(out); }
