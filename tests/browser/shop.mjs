// Somebody else's site: its pages have nothing but the script that collects.
import { createServer } from "node:http";

export class Shop {
  /** @param script what stands in the pages' head */
  static async start() {
    const shop = new Shop();
    shop.script = "";
    shop.server = createServer((request, response) => {
      response.setHeader("content-type", "text/html; charset=utf-8");
      response.end(`<!doctype html><html lang="en"><meta charset="utf-8"><title>${request.url}</title>${shop.script}<h1>Shop</h1></html>`);
    });
    await new Promise((done) => shop.server.listen(0, "127.0.0.1", done));
    shop.origin = `http://127.0.0.1:${shop.server.address().port}`;
    return shop;
  }

  stop() {
    this.server.closeAllConnections();
    this.server.close();
  }
}
