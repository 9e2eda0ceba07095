// Browsers refuse workers to pages opened from a folder: search runs in a hidden frame there.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(address) {
      super();
      const frame = Object.assign(document.createElement("iframe"), { hidden: true, srcdoc: "" });
      this.ready = new Promise((ready) => {
        frame.onload = () => {
          const inner = frame.contentWindow;
          const script = Object.assign(inner.document.createElement("script"), { src: address, onload: ready });
          inner.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
          inner.document.body.append(script);
        };
      });
      this.frame = frame;
      document.body.append(frame);
    }

    postMessage(data) {
      const { contentWindow } = this.frame;
      this.ready.then(() => contentWindow.dispatchEvent(new MessageEvent("message", { data })));
    }

    terminate() { this.frame.remove(); }
  };
}
